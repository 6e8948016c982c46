import Strata

@main struct Example {
    static func main() async throws {
        let storage = try Storage()
        let disk = try await storage.open("disk.qcow2", format: .qcow2)
        try await disk.write(Array("hello".utf8), at: 4096)
        try await disk.flush()
        let bytes = try await disk.read(at: 4096, count: 5)
        print(String(decoding: bytes, as: UTF8.self), "from a disk of", disk.length, "bytes")
        try await storage.startNBDServer(.unix(path: "disk.sock"))  // other programs see it at nbd+unix:///disk?socket=disk.sock
        try await storage.export(disk, as: "disk", isWritable: true)
        try await storage.close()
    }
}
