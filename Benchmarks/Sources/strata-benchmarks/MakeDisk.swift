import Glibc
import Strata

/// Makes an image on tmpfs and fills it through the library, so that every cluster is allocated.
func makeDisk(in folder: String, format: BlockdevDriver, with storage: Storage) async throws -> Disk {
    let path = "\(folder)/disk.\(format)"
    // The library opens images; making them is the tools' work.
    try run("qemu-img", "create", "-q", "-f", "\(format)", path, "\(Benchmark.diskSize)")
    let disk = try await storage.open(path, format: format)
    let part = 1 << 20
    for offset in stride(from: 0, to: Benchmark.diskSize, by: part) {
        try await disk.write([UInt8](repeating: UInt8(truncatingIfNeeded: offset >> 20 | 1), count: part), at: offset)
    }
    try await disk.flush()
    return disk
}

private func run(_ words: String...) throws {
    var arguments = words.map { strdup($0) } + [nil]
    defer { for argument in arguments { free(argument) } }
    var identifier: pid_t = 0
    guard posix_spawnp(&identifier, words[0], nil, nil, &arguments, environ) == 0 else {
        throw Main.Failure(description: "cannot start \(words[0]): Scripts/install-packages test installs it")
    }
    var status: Int32 = 0
    waitpid(identifier, &status, 0)
    guard status == 0 else { throw Main.Failure(description: "\(words.joined(separator: " ")) failed") }
}
