import Foundation
import StrataTesting
import Testing

@Suite("standard streams", .timeLimit(.minutes(2)))
struct StandardStreamTests {
    @Test("a program that is started without standard streams writes none of its messages into an image", arguments: [
        "io -c 'read 0 512' disk.raw", "img resize disk.raw 128k", "io -f raw -c 'write 1M 1' -c nonsense disk.raw", "img dd -f raw -O raw if=disk.raw of=disk.raw nonsense=1",
        "daemon --blockdev driver=file,node-name=disk,filename=disk.raw --export type=nbd,id=e,node-name=disk",
    ], ["0<&- 1>&- 2>&-", "2>&-", "1>&- 2>&-"])
    func closedStreams(line: String, closed: String) throws {
        let folder = try TemporaryFolder()
        try folder.write(repeatElement(0, count: 65536), to: "disk.raw")
        _ = try run("/bin/sh", ["-c", "exec \"$0\" \(line) \(closed)", Strata.binary], in: folder.url, atMost: .seconds(20))
        #expect(try folder.read("disk.raw").allSatisfy { $0 == 0 })
    }

    @Test("a reader that is slow to read is waited for, not asked again and again, also where the stream does not block")
    func slowReader() throws {
        let pipe = Pipe()
        let writer = pipe.fileHandleForWriting.fileDescriptor
        #expect(fcntl(writer, F_SETFL, O_NONBLOCK) == 0)
        var filled = 0
        let chunk = [UInt8](repeating: 0x20, count: 4096)
        while true {
            let count = write(writer, chunk, chunk.count)
            if count < 0 { break }
            filled += count
        }
        let program = Process()
        program.executableURL = URL(fileURLWithPath: Strata.binary)
        program.arguments = ["img", "-T", "help"]
        program.standardOutput = pipe.fileHandleForWriting
        try program.run()
        pipe.fileHandleForWriting.closeFile()
        // A process that asks again and again is never asleep.
        var asleep = 0
        let sleeps = waitUntil(atMost: .seconds(20)) {
            let line = try? String(contentsOfFile: "/proc/\(program.processIdentifier)/stat", encoding: .utf8)
            asleep = line?.split(separator: ")").last?.first { $0 != " " } == "S" ? asleep + 1 : 0
            return asleep == 20
        }
        let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile().dropFirst(filled), as: UTF8.self)
        program.waitUntilExit()
        #expect(sleeps && program.terminationStatus == 0)
        #expect(try text == mustRun(Strata.binary, ["img", "-T", "help"]).text)
    }
}
