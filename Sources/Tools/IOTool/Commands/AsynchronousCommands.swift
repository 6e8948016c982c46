import BlockGraph
import IOCore
import StrataBase
import ToolSupport

extension IOCommand {
    static let aioRead = IOCommand(
        name: "aio_read", arguments: "[-Ciqrv] [-P pattern] off len [len..]", summary: "begin a read and go on",
        details: [
            " Begins a read and does not wait for it; 'aio_flush' does. Whether it succeeds does not show in the exit status.",
            " -C      print the figures for a program",
            " -i      count a request that makes no sense, and do nothing",
            " -P BYTE check that every byte read is this one",
            " -q      print no figures",
            " -v      show the bytes",
            " -r      accepted without effect",
        ], count: 2...manyArguments
    ) { arguments, session throws(CommandFailure) in
        let options = try LetterOptions(arguments, letters: "CP:iqrv", command: "aio_read")
        let pattern = try options.last("P").map(ArgumentValues.pattern)
        let disk = try session.disk()
        if options.contains("i") { return refuse(disk, .read, "read") }
        let (offset, lengths) = try VectorArguments.parse(options.operands)
        do throws(BlockError) { try disk.check(offset, lengths.reduce(0, +)) } catch {
            return StandardStreams.printLine("readv failed: \(BlockError.text(ofErrno: error.errno))")
        }
        let buffer = TransferBuffer(lengths, isMisaligned: session.isMisaligned, filledWith: 0xab)
        let report = TransferReport(verb: "read", offset: offset, byteCount: buffer.byteCount, style: .init(options))
        let shows = options.contains("v") && !options.contains("q")
        begin(in: session, report, failingAs: "readv", { () async throws(BlockError) in
            defer { withExtendedLifetime(buffer) {} }
            try await disk.read(buffer.vector, at: offset)
        }, afterwards: {
            defer { withExtendedLifetime(buffer) {} }
            if let pattern, !buffer.holds(pattern, at: 0, byteCount: buffer.byteCount) {
                StandardStreams.print("Pattern verification failed at offset \(offset), \(buffer.byteCount) bytes\n")
            }
            if shows { HexDump.print(buffer.vector, startingAt: offset) }
        })
    }

    static let aioWrite = IOCommand(
        name: "aio_write", arguments: "[-Cfiqruz] [-P pattern] off len [len..]", summary: "begin a write and go on",
        details: [
            " Begins a write and does not wait for it; 'aio_flush' does. Whether it succeeds does not show in the exit status.",
            " -C      print the figures for a program",
            " -f      the data is on stable storage when the request is over",
            " -i      count a request that makes no sense, and do nothing",
            " -P BYTE what to write (0xcd)",
            " -q      print no figures",
            " -u      give the space back if that makes zeroes (with -z)",
            " -z      write zeroes",
            " -r      accepted without effect",
        ], count: 2...manyArguments, needsWriting: true
    ) { arguments, session throws(CommandFailure) in
        let options = try LetterOptions(arguments, letters: "CfiP:qruz", command: "aio_write")
        let pattern = try options.last("P").map(ArgumentValues.pattern)
        let disk = try session.disk()
        if options.contains("i") { return refuse(disk, .write, "write") }
        guard options.operands.count >= 2 else { throw .usage(nil) }
        if options.contains("z"), options.operands.count > 2 { throw .said("-z supports only a single length parameter") }
        if options.contains("u"), !options.contains("z") { throw .said("-u requires -z to be specified") }
        if options.contains("z") { try WriteRules.checkZeroes(options) }
        if options.contains("z"), pattern != nil { throw .said("-z and -P cannot be specified at the same time") }
        let (offset, lengths) = try VectorArguments.parse(options.operands)
        let byteCount = lengths.reduce(0, +)
        let flags = WriteRules.flags(options)
        let report = TransferReport(verb: "wrote", offset: offset, byteCount: byteCount, style: .init(options))
        do throws(BlockError) { try disk.check(offset, byteCount) } catch {
            return StandardStreams.printLine("aio_write failed: \(BlockError.text(ofErrno: error.errno))")
        }
        if options.contains("z") {
            return begin(in: session, report, failingAs: "aio_write") { () async throws(BlockError) in
                try await disk.writeZeroes(at: offset, byteCount: byteCount, flags: flags)
            }
        }
        let buffer = TransferBuffer(lengths, isMisaligned: session.isMisaligned, filledWith: pattern ?? WriteRules.usualByte)
        begin(in: session, report, failingAs: "aio_write") { () async throws(BlockError) in
            defer { withExtendedLifetime(buffer) {} }
            try await disk.write(buffer.vector, at: offset, flags: flags)
        }
    }

    static let aioFlush = IOCommand(name: "aio_flush", summary: "wait for the requests that were begun", count: 0...0) { _, session throws(CommandFailure) in
        await session.outstanding.waitUntilIdle()
    }

    /// Starts a request and returns; what comes of it is printed when it is over.
    private static func begin(
        in session: IOSession, _ report: TransferReport, failingAs operation: String, _ request: @escaping @Sendable () async throws(BlockError) -> Void,
        afterwards: @escaping @Sendable () -> Void = {}
    ) {
        let outstanding = session.outstanding
        outstanding.enter()
        session.context.spawn {
            let start = MonotonicTime.now
            do throws(BlockError) {
                try await request()
                let text = report.text(nanoseconds: max(1, MonotonicTime.now - start))
                afterwards()
                StandardStreams.print(text)
            } catch {
                StandardStreams.printLine("\(operation) failed: \(BlockError.text(ofErrno: error.errno))")
            }
            outstanding.leave()
        }
    }

    /// A request that makes no sense: it shows in the statistics and nowhere else.
    private static func refuse(_ disk: Disk, _ operation: AccountedOperation, _ name: String) {
        StandardStreams.print("injecting invalid \(name) request\n")
        disk.image.backend.accounting.refused(operation)
    }
}

extension StandardStreams {
    fileprivate static func printLine(_ text: String) { print("\(text)\n") }
}
