// swift-tools-version: 6.2
import PackageDescription

// Every module, grouped by floor. A module imports only modules on lower floors; Tests/PackageTests checks that.
// Docs/Tour.md says what each room holds.

/// The same compiler settings for every module of ours: one language, no exceptions.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    // An async function runs where its caller runs: a chain of drivers costs no executor hop per layer (Docs/Concurrency.md).
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

/// For what makes, compares and judges many bytes in tests, which takes fifty times as long without optimization. To compile it takes three times as long, so
/// that the rest does without. Overflow and bounds are checked all the same, and assertions hold.
let optimized: [SwiftSetting] = settings + [.unsafeFlags(["-O", "-assert-config", "Debug"], .when(configuration: .debug))]

/// Scripts/fuzz asks for libFuzzer's instrumentation of what takes bytes from strangers. Nobody else has a use for it, or needs libFuzzer. StrataBase is
/// left out: the tools that run during the build use it too. The variable names libFuzzer's archive, the one without a main function.
let fuzzerRuntime = Context.environment["STRATA_FUZZ"]
let instrumented: Set = ["IOCore", "QAPIRuntime", "StorageSchema", "BlockGraph", "QCOW2", "NBDProtocol"]

/// Scripts/build links the program so that it starts fast (Docs/Decisions/0010-how-the-program-starts.md). The variable names a folder that has the
/// C++ runtime as an archive only; STRATA_PACKED says that relative relocations may be packed.
let programLinking: [LinkerSetting] =
    Context.environment["STRATA_ARCHIVES"].map { archives in
        let orderFile = "\(Context.packageDirectory)/Sources/Tools/strata/function-order.txt"
        return [
            .unsafeFlags([
                "-use-ld=lld", "-L\(archives)", "-Xclang-linker", "-static-libgcc", "-Xlinker", "--no-export-dynamic", "-Xlinker", "--symbol-ordering-file=\(orderFile)",
                "-Xlinker", "--no-warn-symbol-ordering",
            ] + (Context.environment["STRATA_PACKED"] == nil ? [] : ["-Xlinker", "-z", "-Xlinker", "pack-relative-relocs"]))
        ]
    } ?? []

/// A Swift module in the folder Sources/`room`/`name`. Every use of an unsafe construct must say so with `unsafe`.
func module(_ name: String, in room: String, _ dependencies: [Target.Dependency] = [], plugins: [Target.PluginUsage] = []) -> Target {
    .target(
        name: name, dependencies: dependencies, path: "Sources/\(room)/\(name)",
        swiftSettings: settings + [.strictMemorySafety()] + (fuzzerRuntime != nil && instrumented.contains(name) ? [.unsafeFlags(["-sanitize=fuzzer"])] : []), plugins: plugins)
}

/// An executable in the folder Sources/`room`/`name`.
func program(_ name: String, in room: String, _ dependencies: [Target.Dependency], exclude: [String] = [], linking: [LinkerSetting] = []) -> Target {
    .executableTarget(
        name: name, dependencies: dependencies, path: "Sources/\(room)/\(name)", exclude: exclude,
        swiftSettings: settings + [.strictMemorySafety()], linkerSettings: linking)
}

/// The tests of one module or of one promise, in the folder Tests/`name`.
func tests(
    _ name: String, _ dependencies: [Target.Dependency], exclude: [String] = [], resources: [Resource] = [], settings: [SwiftSetting] = settings
) -> Target {
    .testTarget(name: name, dependencies: dependencies + ["TestThreads"], path: "Tests/\(name)", exclude: exclude, resources: resources, swiftSettings: settings)
}

let package = Package(
    name: "strata",
    products: [
        .executable(name: "strata", targets: ["strata"]),
        .library(name: "Strata", targets: ["Strata"]),
    ],
    targets: [
        // Floor 0: C that Swift cannot import by itself.
        .target(name: "CStrataLinux", path: "Sources/Base/CStrataLinux", cSettings: [.define("_GNU_SOURCE")]),
        .target(name: "CGnuTLS", path: "Sources/Base/CGnuTLS", cSettings: [.define("_GNU_SOURCE")]),
        .systemLibrary(name: "CZlib", path: "Sources/Base/CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(name: "CDeflate", path: "Sources/Base/CDeflate", pkgConfig: "libdeflate", providers: [.apt(["libdeflate-dev"])]),
        .systemLibrary(name: "CZstandard", path: "Sources/Base/CZstandard", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),

        // Floor 1: units, errors, bytes.
        module("StrataBase", in: "Base"),
        module("TraceRuntime", in: "Base", ["CStrataLinux"]),

        // Floor 2: I/O, JSON, and the pure halves of schema and protocol.
        module("IOCore", in: "Base", ["CStrataLinux", "CGnuTLS", "CZlib", "CDeflate", "CZstandard", "StrataBase", "TraceRuntime"], plugins: [.plugin(name: "QAPIPlugin")]),
        module("QAPIRuntime", in: "QAPI", ["StrataBase"]),
        module("QAPISchema", in: "QAPI"),
        module("TraceCompiler", in: "QAPI"),
        module("NBDProtocol", in: "NBD", ["StrataBase"]),

        // Floor 3: the schema compiler's back half, and what the compiler generates.
        module("QAPIGenerator", in: "QAPI", ["QAPISchema"]),
        module("StorageSchema", in: "QAPI", ["QAPIRuntime"], plugins: [.plugin(name: "QAPIPlugin")]),

        // Floor 4: what nodes, exports and servers refer to by name.
        module("SocketAddresses", in: "QAPI", ["StrataBase", "IOCore", "StorageSchema"]),
        module("ManagedObjects", in: "Objects", ["StrataBase", "IOCore", "QAPIRuntime", "StorageSchema"]),

        // Floor 5: the schema compiler (imported by nobody), the graph, and what monitors talk over.
        program("qapi-gen", in: "QAPI", ["StrataBase", "QAPISchema", "QAPIGenerator"]),
        program("trace-gen", in: "QAPI", ["StrataBase", "TraceCompiler"]),
        .plugin(name: "QAPIPlugin", capability: .buildTool(), dependencies: ["qapi-gen", "trace-gen"], path: "Sources/QAPI/QAPIPlugin"),
        module("BlockGraph", in: "Graph", ["StrataBase", "TraceRuntime", "IOCore", "StorageSchema", "QAPIRuntime", "ManagedObjects"], plugins: [.plugin(name: "QAPIPlugin")]),
        module("CharacterDevices", in: "Management", ["StrataBase", "IOCore", "QAPIRuntime", "StorageSchema", "SocketAddresses", "ManagedObjects"]),

        // Floor 6: the monitor, drivers, exports, and what copies between nodes.
        module("QMPMonitor", in: "Management", ["StrataBase", "TraceRuntime", "IOCore", "QAPIRuntime", "StorageSchema", "CharacterDevices"], plugins: [.plugin(name: "QAPIPlugin")]),
        module("BasicDrivers", in: "Drivers", ["StrataBase", "TraceRuntime", "IOCore", "BlockGraph", "StorageSchema"], plugins: [.plugin(name: "QAPIPlugin")]),
        module("BlockFilters", in: "Drivers", ["StrataBase", "TraceRuntime", "IOCore", "BlockGraph", "ManagedObjects", "QAPIRuntime", "StorageSchema"], plugins: [.plugin(name: "QAPIPlugin")]),
        module("BlockEncryption", in: "Drivers", ["StrataBase", "IOCore", "BlockGraph", "ManagedObjects", "StorageSchema"]),
        module("ReadOnlyFormats", in: "Drivers", ["StrataBase", "IOCore", "BlockGraph", "StorageSchema"]),
        module("NBDClient", in: "NBD", ["StrataBase", "TraceRuntime", "IOCore", "BlockGraph", "NBDProtocol", "StorageSchema", "SocketAddresses", "ManagedObjects"], plugins: [.plugin(name: "QAPIPlugin")]),
        module("TestDrivers", in: "Drivers", ["StrataBase", "IOCore", "BlockGraph", "StorageSchema"]),
        module("BlockCopy", in: "Jobs", ["StrataBase", "IOCore", "BlockGraph"]),
        module("JobCore", in: "Jobs", ["StrataBase", "TraceRuntime", "IOCore", "QAPIRuntime", "StorageSchema", "BlockGraph"], plugins: [.plugin(name: "QAPIPlugin")]),
        module("BlockExports", in: "Exports", ["StrataBase", "IOCore", "BlockGraph", "StorageSchema"]),

        // Floor 7: the format that encrypts by itself, the NBD export, and the filters that copy.
        module(
            "QCOW2", in: "Drivers", ["StrataBase", "TraceRuntime", "IOCore", "BlockGraph", "BlockEncryption", "ManagedObjects", "StorageSchema"],
            plugins: [.plugin(name: "QAPIPlugin")]),
        module("CopyFilters", in: "Drivers", ["StrataBase", "TraceRuntime", "IOCore", "BlockGraph", "BlockCopy", "BlockFilters", "StorageSchema"], plugins: [.plugin(name: "QAPIPlugin")]),
        module("ChainJobs", in: "Jobs", ["StrataBase", "TraceRuntime", "IOCore", "StorageSchema", "BlockGraph", "BlockFilters", "BlockCopy", "JobCore"], plugins: [.plugin(name: "QAPIPlugin")]),
        module("NBDServer", in: "NBD", ["ManagedObjects", "StrataBase", "TraceRuntime", "IOCore", "BlockGraph", "BlockExports", "NBDProtocol", "StorageSchema", "SocketAddresses", "QAPIRuntime"], plugins: [.plugin(name: "QAPIPlugin")]),

        // Floor 8: jobs that put filters into the graph.
        module("BackupJobs", in: "Jobs", ["StrataBase", "IOCore", "StorageSchema", "BlockGraph", "BlockCopy", "CopyFilters", "JobCore"]),

        // Floor 9: the lists of drivers and exports, and one file per QMP command.
        module(
            "StorageCommands", in: "Management",
            [
                "StrataBase", "TraceRuntime", "IOCore", "QAPIRuntime", "StorageSchema", "ManagedObjects", "BlockGraph", "CharacterDevices", "QMPMonitor", "BasicDrivers", "BlockFilters", "CopyFilters", "QCOW2",
                "BlockEncryption", "BlockExports", "NBDServer", "NBDClient", "ReadOnlyFormats", "TestDrivers", "JobCore", "BackupJobs", "ChainJobs",
            ]),

        // Floor 10: what embedders import, and what the tools share.
        module(
            "Strata", in: "Library",
            ["StrataBase", "IOCore", "QAPIRuntime", "StorageSchema", "BlockGraph", "StorageCommands", "BlockExports", "NBDServer", "QMPMonitor"]),
        module("ToolSupport", in: "Tools", ["StrataBase", "TraceRuntime", "IOCore", "QAPIRuntime", "StorageSchema", "ManagedObjects", "BlockGraph", "QCOW2", "StorageCommands"]),

        // Floor 11: one library per tool.
        module("ImgTool", in: "Tools", ["StrataBase", "IOCore", "QAPIRuntime", "StorageSchema", "ManagedObjects", "BlockGraph", "BlockCopy", "BlockEncryption", "QCOW2", "BasicDrivers", "StorageCommands", "ToolSupport"]),
        module("DaemonTool", in: "Tools", ["StrataBase", "IOCore", "QAPIRuntime", "StorageSchema", "BlockGraph", "CharacterDevices", "QMPMonitor", "StorageCommands", "ToolSupport"]),
        module("IOTool", in: "Tools", ["StrataBase", "IOCore", "QAPIRuntime", "StorageSchema", "ManagedObjects", "BlockGraph", "QCOW2", "ToolSupport"]),
        module(
            "NBDTool", in: "Tools",
            [
                "StrataBase", "IOCore", "QAPIRuntime", "StorageSchema", "ManagedObjects", "BlockGraph", "BlockExports", "NBDProtocol", "NBDClient", "NBDServer", "ToolSupport",
            ]),
        module("QMPTool", in: "Tools", ["StrataBase", "IOCore", "QAPIRuntime", "ToolSupport"]),

        // Floor 12: the one executable.
        program(
            "strata", in: "Tools", ["StrataBase", "IOCore", "ToolSupport", "ImgTool", "IOTool", "NBDTool", "DaemonTool", "QMPTool"],
            exclude: ["function-order.txt"], linking: programLinking),

        // Tests.
        .target(name: "TestThreads", path: "Tests/Support/TestThreads"),
        .target(name: "StrataTesting", path: "Tests/Support/StrataTesting", swiftSettings: optimized),
        .target(
            name: "SampleSchema", dependencies: ["QAPIRuntime"], path: "Tests/Support/SampleSchema", swiftSettings: settings,
            plugins: [.plugin(name: "QAPIPlugin")]),
        tests("QAPIGeneratedTests", ["QAPIRuntime", "SampleSchema"]),
        .target(
            name: "DriverTesting", dependencies: ["StrataTesting", "StrataBase", "IOCore", "StorageSchema", "BlockGraph"], path: "Tests/Support/DriverTesting",
            swiftSettings: optimized),
        tests(
            "BlockFiltersTests",
            ["DriverTesting", "StrataTesting", "BlockFilters", "BasicDrivers", "QCOW2", "BlockGraph", "ManagedObjects", "QAPIRuntime", "StorageSchema", "StorageCommands", "IOCore", "StrataBase"]),
        tests("DriverConformanceTests", ["DriverTesting", "BlockEncryption", "ManagedObjects", "BlockFilters", "StrataTesting", "StrataBase", "IOCore", "StorageSchema", "BlockGraph", "QCOW2", "StorageCommands"], settings: optimized),
        tests("TestDriversTests", ["StrataTesting", "StrataBase", "IOCore", "StorageSchema", "BlockGraph", "QCOW2", "BasicDrivers", "TestDrivers", "QAPIRuntime"]),
        tests("StrataBaseTests", ["StrataTesting", "StrataBase"]),
        .target(
            name: "FuzzTargets", dependencies: ["StrataBase", "IOCore", "QAPIRuntime", "StorageSchema", "BlockGraph", "QCOW2", "NBDProtocol"],
            path: "Tests/Support/FuzzTargets", swiftSettings: settings + [.enableExperimentalFeature("Lifetimes")]),
        tests("FuzzTests", ["FuzzTargets"], exclude: ["Findings"]),
        tests("PackageTests", ["StrataTesting"]),
        tests("TraceRuntimeTests", ["TraceRuntime"]),
        tests("TraceCompilerTests", ["TraceCompiler"]),
        .testTarget(
            name: "ConformanceTests", dependencies: ["StrataTesting", "TestThreads"], path: "Tests/Conformance",
            exclude: [
                "backup-scenarios.py", "bitmap-scenarios.py", "busy-scenarios.py", "daily-scenarios.py", "job-scenarios.py", "qmp-peer.py", "random-conversations.py",
                "random-jobs.py", "random_commands.py", "scenario_stage.py",
                "shell-terminal.py", "socket-layers.py",
            ],
            swiftSettings: settings),
        tests("BackupJobsTests", ["DriverTesting", "BackupJobs", "JobCore", "CopyFilters", "BlockGraph", "StorageSchema", "IOCore", "StrataBase"]),
        tests("BlockCopyTests", ["DriverTesting", "BlockCopy", "CopyFilters", "BlockGraph", "StorageSchema", "IOCore", "StrataBase"]),
        tests("JobCoreTests", ["StrataTesting", "JobCore", "BlockGraph", "BasicDrivers", "StorageSchema", "QAPIRuntime", "IOCore", "StrataBase"]),
        tests(
            "ChainJobsTests",
            ["DriverTesting", "ChainJobs", "BackupJobs", "BlockCopy", "CopyFilters", "JobCore", "BlockFilters", "BasicDrivers", "QCOW2", "BlockGraph", "QAPIRuntime", "StorageSchema", "IOCore", "StrataBase"],
            settings: optimized),
        tests("ManagedObjectsTests", ["StrataBase", "QAPIRuntime", "StorageSchema", "ManagedObjects"]),
        tests("NBDProtocolTests", ["StrataTesting", "NBDProtocol", "StrataBase"]),
        tests("NBDClientTests", ["NBDClient", "NBDServer", "NBDProtocol", "BlockExports", "BlockGraph", "BasicDrivers", "StorageSchema", "IOCore", "StrataBase", "StrataTesting"]),
        tests("NBDServerTests", ["StrataTesting", "ManagedObjects", "NBDServer", "NBDProtocol", "BlockExports", "BlockGraph", "BasicDrivers", "QCOW2", "StorageSchema", "IOCore", "StrataBase"]),
        tests("IOCoreTests", ["StrataTesting", "IOCore", "StrataBase"]),
        tests("BlockEncryptionTests", ["StrataTesting", "BlockEncryption", "StorageSchema", "IOCore", "StrataBase"]),
        .target(
            name: "QCOW2Testing", dependencies: ["StrataTesting", "StrataBase", "IOCore", "StorageSchema", "ManagedObjects", "BlockGraph", "BasicDrivers", "QCOW2"],
            path: "Tests/Support/QCOW2Testing", swiftSettings: optimized),
        // Built with optimization it judges millions of crash states: Scripts/crash-search.
        .executableTarget(name: "crash-search", dependencies: ["QCOW2Testing", "StrataTesting"], path: "Tests/Support/CrashRunner", swiftSettings: settings),
        tests("QCOW2Tests", ["QCOW2Testing", "DriverTesting", "StrataTesting", "StrataBase", "IOCore", "StorageSchema", "BlockGraph", "BasicDrivers", "BlockEncryption", "ManagedObjects", "QCOW2"]),
        tests("ReadOnlyFormatsTests", ["StrataTesting", "StrataBase", "IOCore", "StorageSchema", "BlockGraph", "BasicDrivers", "ReadOnlyFormats"]),
        tests("BlockGraphTests", ["StrataTesting", "BlockGraph", "BasicDrivers", "IOCore", "StrataBase", "StorageSchema"]),
        tests("ToolSupportTests", ["StrataBase", "TraceRuntime", "IOCore", "ManagedObjects", "BlockGraph", "ToolSupport"]),
        tests("QAPIRuntimeTests", ["QAPIRuntime", "StrataTesting"]),
        tests("QAPISchemaTests", ["QAPISchema", "QAPIGenerator", "StrataBase"], exclude: ["Schemas"]),
        tests("StrataLibraryTests", ["StrataTesting", "Strata"], exclude: ["Example"]),
        tests("DaemonToolTests", ["StrataTesting", "IOCore", "StrataBase", "QAPIRuntime", "DaemonTool", "strata"]),
        tests("StorageCommandsTests", ["StrataTesting", "BlockGraph", "ManagedObjects", "StrataBase", "IOCore", "QAPIRuntime", "StorageSchema", "StorageCommands"]),
        tests("ImgToolTests", ["StrataTesting", "StrataBase", "IOCore", "QAPIRuntime", "ToolSupport", "ImgTool", "strata"]),
        tests("IOToolTests", ["StrataBase", "IOCore", "IOTool"]),
        tests("StorageSchemaTests", ["StrataTesting", "QAPIRuntime", "StorageSchema"], exclude: ["not-yet-implemented.txt"]),
        tests("QMPToolTests", ["QAPIRuntime", "StorageSchema", "ToolSupport", "QMPTool"]),
        tests("QMPMonitorTests", ["StrataTesting", "StrataBase", "IOCore", "QAPIRuntime", "StorageSchema", "CharacterDevices", "QMPMonitor"]),
        tests("CharacterDevicesTests", ["StrataTesting", "StrataBase", "IOCore", "QAPIRuntime", "StorageSchema", "ManagedObjects", "CharacterDevices"]),
    ],
    swiftLanguageModes: [.v6]
)

if let fuzzerRuntime {
    package.targets.append(
        .executableTarget(
            name: "strata-fuzz", dependencies: ["FuzzTargets"], path: "Tests/Support/FuzzRunner", swiftSettings: settings,
            linkerSettings: [
                .unsafeFlags([
                    "-Xlinker", fuzzerRuntime, "-Xlinker", "--wrap=__sanitizer_cov_trace_cmp8", "-Xlinker", "--wrap=__sanitizer_cov_trace_const_cmp8", "-lstdc++",
                ])
            ]))
}
