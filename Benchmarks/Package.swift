// swift-tools-version: 6.2
import PackageDescription

// A package of its own, so that what only benchmarks need never reaches those who use the library.

let package = Package(
    name: "strata-benchmarks",
    dependencies: [.package(name: "strata", path: "..")],
    targets: [
        .executableTarget(
            name: "strata-benchmarks", dependencies: [.product(name: "Strata", package: "strata")],
            swiftSettings: [.swiftLanguageMode(.v6), .enableUpcomingFeature("ExistentialAny")])
    ]
)
