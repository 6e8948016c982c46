import StrataTesting

/// What an image is created with.
struct ImageFeatures {
    struct Backing {
        let name: String
        let format: String
        let options: [String]
        /// A multiple of 512.
        let byteCount: Int
    }

    let version: Int
    let clusterSize: Int
    let refcountBits: Int
    /// A multiple of 512.
    let byteCount: Int
    let hasSubclusters: Bool
    let isLazy: Bool
    let compression: String
    let dataFile: String?
    let isDataFileRaw: Bool
    let preallocation: String
    let backing: Backing?
    /// By LUKS, with the secret that `RandomImage.secret` defines.
    let isEncrypted: Bool

    init(_ random: inout SeededGenerator) {
        func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }
        version = chance(25) ? 2 : 3
        // Small clusters most of the time: many tables in a small file.
        let bits = chance(8) ? Int.random(in: 18...21, using: &random) : [9, 9, 10, 11, 12, 12, 13, 14, 15, 16, 16].randomElement(using: &random) ?? 16
        clusterSize = 1 << bits
        byteCount = min(8 << 20, max(64 << 10, clusterSize * 4) + Int.random(in: 0...4000, using: &random) * 512)
        hasSubclusters = version == 3 && bits >= 14 && chance(50)
        refcountBits = version == 3 && chance(50) ? 1 << Int.random(in: 0...6, using: &random) : 16
        isLazy = version == 3 && chance(30)
        compression = version == 3 && chance(40) ? "zstd" : "zlib"
        dataFile = version == 3 && chance(20) ? "disk.data" : nil
        let wantsBacking = chance(40)
        // A raw data file shows the whole disk: there is no backing file below it.
        isDataFileRaw = dataFile != nil && !wantsBacking && chance(50)
        // Preallocated clusters hide a backing file.
        preallocation = !wantsBacking && chance(30) ? ["metadata", "falloc", "full"].randomElement(using: &random) ?? "off" : "off"
        if wantsBacking {
            let isRaw = chance(40)
            let options = isRaw ? [] : ["-o", "cluster_size=\(1 << Int.random(in: 9...16, using: &random))"]
            let size = max(512, byteCount + ([0, 0, -20, 20].randomElement(using: &random) ?? 0) * 512)
            backing = Backing(name: isRaw ? "base.raw" : "base.qcow2", format: isRaw ? "raw" : "qcow2", options: options, byteCount: size)
        } else {
            backing = nil
        }
        // What is preallocated and was never written would be noise.
        isEncrypted = chance(20) && !isDataFileRaw && preallocation == "off"
    }

    /// As `-o` takes it.
    var text: String {
        var parts = ["compat=\(version == 2 ? "0.10" : "1.1")", "cluster_size=\(clusterSize)"]
        if version == 3 {
            parts += ["refcount_bits=\(refcountBits)", "extended_l2=\(hasSubclusters ? "on" : "off")", "lazy_refcounts=\(isLazy ? "on" : "off")", "compression_type=\(compression)"]
        }
        if let dataFile { parts += ["data_file=\(dataFile)", "data_file_raw=\(isDataFileRaw ? "on" : "off")"] }
        if preallocation != "off" { parts.append("preallocation=\(preallocation)") }
        if isEncrypted { parts += ["encrypt.format=luks", "encrypt.key-secret=s", "encrypt.iter-time=10"] }
        return parts.joined(separator: ",")
    }

    var backingArguments: [String] { backing.map { ["-b", $0.name, "-F", $0.format] } ?? [] }

    /// A version 2 image over a backing file has no way to say that a cluster reads as zeroes: a discard leaves what is there.
    var discardsToZero: Bool { version == 3 || backing == nil }
    var canCompress: Bool { dataFile == nil && preallocation == "off" && !isEncrypted }
    /// QEMU has no snapshots beside a data file. Refcounts need room for two snapshots more of each compressed cluster that shares a host cluster.
    var canSnapshot: Bool { dataFile == nil && refcountBits >= 8 }
}
