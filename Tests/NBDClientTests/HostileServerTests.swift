import BlockGraph
import Foundation
import IOCore
import NBDClient
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// Whatever a server says, the client has one clear error for it, a connection that is closed, and goes on living.
@Suite("NBD client: hostile servers", .timeLimit(.minutes(4)))
struct HostileServerTests {
    private typealias Script = ScriptedServer

    private func failure(_ bench: ClientBench, _ options: BlockdevOptions) async throws -> BlockError? {
        do {
            let backend = try await bench.open(options)
            try await bench.close(backend)
            return nil
        } catch let error as BlockError { return error }
    }

    @Test("a server may hang up at any byte of the handshake")
    func hangUpInHandshake() async throws {
        let folder = try TemporaryFolder()
        let handshake = Script.handshake()
        let length = Atomic<Int>(0)
        let server = try Script(in: folder) { client in
            client.say(handshake.prefix(length.load(ordering: .acquiring)))
            client.hangUp()
        }
        let bench = try ClientBench()
        for count in 0..<handshake.count {
            length.store(count, ordering: .releasing)
            let error = try await failure(bench, ClientBench.options(server.path))
            #expect(error?.description.contains("NBD server closed the connection during the negotiation") == true, "after \(count) bytes: \(String(describing: error))")
        }
        await bench.stop()
        server.stop()
    }

    /// Opens a node on a server that answers a read of 24 bytes at 0 with `answer`, and says how the read ends.
    private func read(_ folder: TemporaryFolder, answers: [@Sendable (_ cookie: [UInt8]) -> [UInt8]], each: (Int, BlockError?) -> Void) async throws {
        let current = Atomic<Int>(0)
        let closings = Atomic<Int>(0)
        let server = try Script(in: folder) { client in
            client.say(Script.handshake())
            guard client.hear(Script.handshakeAnswerByteCount) != nil, let request = client.hear(Script.requestByteCount) else { return }
            client.say(answers[current.load(ordering: .acquiring)](Array(request[8..<16])))
            client.hangUp()
            closings.add(1, ordering: .releasing)
        }
        let bench = try ClientBench()
        for index in answers.indices {
            current.store(index, ordering: .releasing)
            let backend = try await bench.open(ClientBench.options(server.path))
            let error: BlockError? = try await bench.on { _ in
                let buffer = IOBuffer(zeroed: 24)
                defer { withExtendedLifetime(buffer) {} }
                do throws(BlockError) {
                    try await backend.read(buffer.vector, at: GuestOffset(0))
                    return nil
                } catch { return error }
            }
            each(index, error)
            try await bench.close(backend)
            #expect(waitUntil { closings.load(ordering: .acquiring) > index }, "the connection is closed")
        }
        await bench.stop()
        server.stop()
    }

    @Test("a server may hang up at any byte of a reply, and the request fails instead of waiting for ever")
    func hangUpInReply() async throws {
        let folder = try TemporaryFolder()
        let length = Script.chunk(1, Script.big(0, 8), offset: 0, Script.big(0, 8) + [UInt8](repeating: 7, count: 24)).count
        let answers = (0..<length).map { count in
            { @Sendable (cookie: [UInt8]) in Array(Script.chunk(1, cookie, offset: 0, Script.big(0, 8) + [UInt8](repeating: 7, count: 24)).prefix(count)) }
        }
        try await read(folder, answers: answers) { index, error in
            #expect(error?.description.hasSuffix("The NBD server closed the connection") == true, "after \(index) bytes: \(String(describing: error))")
        }
    }

    @Test("each kind of malformed reply fails the request and closes the connection")
    func malformed() async throws {
        let folder = try TemporaryFolder()
        let zeroes = [UInt8](repeating: 0, count: 24)
        let answers: [@Sendable ([UInt8]) -> [UInt8]] = [
            { _ in [UInt8](repeating: 0xa5, count: 64) },
            { cookie in Script.chunk(1, cookie.reversed(), offset: 0, Script.big(0, 8) + zeroes) },
            { cookie in Script.chunk(1, cookie, offset: 4096, Script.big(0, 8) + zeroes) },
            { cookie in Script.chunk(1, cookie, offset: 0, Script.big(1, 8) + zeroes) },
            { cookie in Script.chunk(1, cookie, offset: 0, Script.big(0, 8) + zeroes + [0]) },
            { cookie in Script.chunk(1, cookie, offset: 0, Script.big(0, 8) + zeroes.dropLast()) },
            { cookie in Script.chunk(1, cookie, offset: 0, done: false, Script.big(0, 8) + zeroes) + Script.chunk(1, cookie, offset: 0, Script.big(0, 8) + zeroes) },
            { cookie in Script.chunk(2, cookie, offset: 0, Script.big(0, 8) + Script.big(0xffff_ffff, 4)) },
            { cookie in Script.chunk(6, cookie, offset: 0, Script.big(7, 4) + Script.big(1, 4) + Script.big(24, 8) + Script.big(0, 8)) },
            { cookie in Script.chunk(0, cookie, offset: 0) }, { cookie in Script.chunk(99, cookie, offset: 0) },
            { cookie in Script.chunk(0x8001, cookie, offset: 0, Script.big(0, 4) + Script.big(0, 2)) },
            { cookie in Script.chunk(0x8001, cookie, offset: 0, Script.big(5, 4) + Script.big(0xffff, 2)) },
            { cookie in Script.big(0x6e8a_278c, 4) + Script.big(1, 2) + Script.big(2, 2) + cookie + Script.big(0, 8) + Script.big(.max, 8) },
            { cookie in Script.big(0x6744_6698, 4) + Script.big(0, 4) + cookie },
        ]
        try await read(folder, answers: answers) { index, error in
            #expect(error?.code == .connection && error?.description.contains("The NBD server broke the protocol: ") == true, "answer \(index): \(String(describing: error))")
        }
    }

    @Test("a server that leaves under a long write ends no program by a signal")
    func leavesUnderWrite() throws {
        let folder = try TemporaryFolder()
        let server = try Script(in: folder) { client in
            client.say(Script.handshake())
            // Some leave before the payload comes, some in the middle of it; nobody waits for the rest.
            guard client.hear(Script.handshakeAnswerByteCount) != nil else { return }
            _ = client.hear(Script.requestByteCount)
        }
        try folder.write([UInt8](repeating: 3, count: 1 << 20), to: "source")
        let options = "driver=nbd,server.type=unix,server.path=\(server.path)"
        for words in [
            ["io", "-c", "write -P 1 0 1M", "--image-opts", options], ["img", "convert", "-n", "-f", "raw", "source", "--target-image-opts", options],
            ["img", "bench", "-w", "-c", "100", "-s", "128k", "-t", "none", "--image-opts", options],
        ] {
            let result = try run(Strata.binary, words, in: folder.url)
            #expect(result.ending == .exited(1) && ["NBD server", "Input/output error"].contains { (result.text + result.errorText).contains($0) }, "\(words): \(result)")
        }
        server.stop()
    }

    @Test("a server that says nothing more holds up neither the end of an idle connection nor others")
    func silence() async throws {
        let folder = try TemporaryFolder()
        let server = try Script(in: folder) { client in
            client.say(Script.handshake())
            while client.hear(1) != nil {}
        }
        let bench = try ClientBench()
        let backend = try await bench.open(ClientBench.options(server.path, reconnectDelay: 600))
        let time = try await ContinuousClock().measure { try await bench.close(backend) }
        // Nobody is waited for. (A machine that is busy with other tests may take its time.)
        #expect(time < .seconds(10))
        await bench.stop()
        server.stop()
    }

    @Test("names longer than the protocol allows are refused before a server hears of them, in QEMU's words", arguments: ["export", "x-dirty-bitmap"])
    func longNames(option: String) throws {
        let folder = try TemporaryFolder()
        for (count, isTooLong) in [(255, false), (256, false), (4096, false), (4097, true), (70_000, true)] {
            let options = "driver=nbd,server.type=unix,server.path=\(folder.path("nobody")),\(option)=\(String(repeating: "n", count: count))"
            let theirs = try run("qemu-img", ["info", "--image-opts", options]), ours = try run(Strata.binary, ["img", "info", "--image-opts", options])
            let text = isTooLong ? "too long to send to server\n" : "No such file or directory\n"
            #expect(ours.ending == .exited(1) && ours.errorText.hasSuffix(text) && theirs.errorText.hasSuffix(text), "\(count): \(ours.errorText.suffix(200))")
        }
    }

    @Test("errors with numbers of any kind are that request's error, and the connection goes on")
    func errorNumbers() async throws {
        let folder = try TemporaryFolder()
        let numbers: [UInt64] = [1, 5, 12, 22, 28, 75, 95, 108, 2, 0x7fff_ffff, 0xffff_ffff]
        let server = try Script(in: folder) { client in
            client.say(Script.handshake())
            guard client.hear(Script.handshakeAnswerByteCount) != nil else { return }
            for number in numbers {
                guard let request = client.hear(Script.requestByteCount) else { return }
                client.say(Script.chunk(0x8001, Array(request[8..<16]), offset: 0, Script.big(number, 4) + Script.big(3, 2) + Array("why".utf8)))
            }
            _ = client.hear(Script.requestByteCount)  // its goodbye
        }
        let bench = try ClientBench()
        let backend = try await bench.open(ClientBench.options(server.path))
        let errors: [BlockError] = try await bench.on { _ in
            let buffer = IOBuffer(zeroed: 24)
            defer { withExtendedLifetime(buffer) {} }
            var errors: [BlockError] = []
            for _ in numbers { do throws(BlockError) { try await backend.read(buffer.vector, at: GuestOffset(0)) } catch { errors.append(error) } }
            return errors
        }
        #expect(errors.map(\.errno) == [13, 5, 12, 22, 28, 75, 95, 108, 22, 22, 22])
        #expect(errors.allSatisfy { $0.description.contains("server reported: why") } && server.clientCount == 1, "\(errors)")
        try await bench.close(backend)
        await bench.stop()
        server.stop()
    }

    @Test("what is only to be brought near is asked for as such, where the server can")
    func cache() async throws {
        let folder = try TemporaryFolder()
        let commands = Mutex<[UInt8]>([])
        let canCache = Atomic<Bool>(true)
        let server = try Script(in: folder) { client in
            // With and without the flag for CACHE.
            client.say(Script.handshake(flags: canCache.load(ordering: .acquiring) ? 0x0ded : 0x09ed))
            guard client.hear(Script.handshakeAnswerByteCount) != nil else { return }
            while let request = client.hear(Script.requestByteCount) {
                let (command, cookie) = (request[7], Array(request[8..<16]))
                commands.withLock { $0.append(command) }
                if command == 2 { return }
                client.say(command == 0 ? Script.chunk(1, cookie, offset: 0, [UInt8](repeating: 0, count: 8 + 512)) : Script.chunk(0, cookie, offset: 0))
            }
        }
        let bench = try ClientBench()
        for can in [true, false] {
            canCache.store(can, ordering: .releasing)
            let backend = try await bench.open(ClientBench.options(server.path))
            try await bench.on { _ in
                let buffer = IOBuffer(zeroed: 512)
                defer { withExtendedLifetime(buffer) {} }
                try await backend.read(buffer.vector, at: GuestOffset(0), flags: .prefetch)
            }
            try await bench.close(backend)
        }
        await bench.stop()
        server.stop()
        #expect(commands.withLock { $0 } == [5, 2, 0, 2])
    }

    @Test("a server that goes into TLS and has spoken on in clear is not believed; nor one that answers other things, or nothing")
    func injection() throws {
        let folder = try TemporaryFolder()
        try TestCertificates.make(in: folder)
        let agreement = Script.greeting + Script.reply(to: 5, 1)
        let answers: [([UInt8], String)] = [
            (agreement + Script.handshake().dropFirst(18), "clear after TLS was agreed on"), (agreement + [0x16], "clear after TLS was agreed on"),
            (Script.greeting + Script.reply(to: 5, 1 << 31 | 1), "does not support TLS"), (Script.greeting + Script.reply(to: 11, 1), "broke the protocol"),
            (Script.handshake(), "broke the protocol"), (agreement, "TLS handshake failed"),
        ]
        let current = Atomic<Int>(0)
        let server = try Script(in: folder) { client in
            client.say(answers[current.load(ordering: .acquiring)].0)
            client.hangUp()
        }
        let object = "tls-creds-x509,id=t,dir=\(folder.path("alice")),endpoint=client"
        for (index, answer) in answers.enumerated() {
            current.store(index, ordering: .releasing)
            for words in [
                ["img", "info", "--object", object, "--image-opts", "driver=nbd,server.type=unix,server.path=\(server.path),tls-creds=t,tls-hostname=localhost"],
                ["nbd", "-L", "--object", object, "--tls-creds", "t", "--tls-hostname", "localhost", "-k", server.path],
            ] {
                let result = try run(Strata.binary, words)
                #expect(result.ending == .exited(1) && result.errorText.contains(answer.1), "answer \(index): \(result)")
            }
        }
        server.stop()
    }
}
