import BlockGraph
import IOCore
import StrataBase

extension IOCommand {
    static let write = IOCommand(
        name: "write", alias: "w", arguments: "[-bcCfnqruz] [-P pattern | -s source_file] off len",
        summary: "write bytes to the image",
        details: [
            " -b      write to the VM state, not the disk",
            " -c      store the data compressed",
            " -C      print the figures for a program: bytes,requests,time,bytes/s,requests/s",
            " -f      the data is on stable storage when the command is over",
            " -n      fail rather than write zeroes the slow way (with -z)",
            " -P BYTE what to write (0xcd)",
            " -q      print no figures",
            " -s FILE write this file's contents, again and again",
            " -u      give the space back if that makes zeroes (with -z)",
            " -z      write zeroes",
            " -p, -r  accepted without effect",
            "",
            " 'write 512 1k' writes one kilobyte at byte 512.",
        ], count: 2...manyArguments, needsWriting: true
    ) { arguments, session throws(CommandFailure) in
        let options = try LetterOptions(arguments, letters: "bcCfnpP:qrs:uz", command: "write")
        let pattern = try options.last("P").map(ArgumentValues.pattern)
        guard options.operands.count == 2 else { throw .usage(nil) }
        try WriteRules.check(options)
        let offset = try ArgumentValues.bytes(options.operands[0])
        let byteCount = try ArgumentValues.bytes(options.operands[1])
        guard byteCount <= ArgumentValues.longestRequest || options.contains("n") else {
            let remedy = options.contains("z") ? " without -n" : ""
            throw .said("length cannot exceed \(ArgumentValues.longestRequest)\(remedy), given \(options.operands[1])")
        }
        if options.contains("b") || options.contains("c") { try ArgumentValues.checkSectors(offset, byteCount) }
        if options.contains("z") { try WriteRules.checkZeroes(options) }
        var contents: [UInt8]?
        if let path = options.last("s") { contents = try TransferBuffer.pattern(inFile: path, atMost: byteCount) }
        let disk = try session.disk()
        let report = TransferReport(verb: "wrote", offset: offset, byteCount: byteCount, style: .init(options))
        var begin: Int64
        let isVMState = options.contains("b")
        do throws(BlockError) { if !isVMState { try disk.check(offset, byteCount) } } catch { throw .failed("write", error) }
        if options.contains("z") {
            begin = MonotonicTime.now
            do throws(BlockError) {
                try await disk.writeZeroes(at: offset, byteCount: byteCount, flags: WriteRules.flags(options))
            } catch {
                throw .failed("write", error)
            }
        } else {
            let buffer = TransferBuffer([byteCount], isMisaligned: session.isMisaligned, filledWith: pattern ?? WriteRules.usualByte)
            defer { withExtendedLifetime(buffer) {} }
            if let contents { buffer.fill(with: contents) }
            begin = MonotonicTime.now
            do throws(BlockError) {
                if isVMState {
                    try await disk.writeVMState(buffer.vector, at: offset)
                } else {
                    try await disk.write(buffer.vector, at: offset, flags: WriteRules.flags(options))
                }
            } catch {
                throw .failed("write", error)
            }
        }
        report.print(since: begin)
    }

    static let writev = IOCommand(
        name: "writev", arguments: "[-Cfqr] [-P pattern] off len [len..]", summary: "write bytes to the image",
        details: [
            " Writes from one buffer for each length.",
            " -C      print the figures for a program",
            " -f      the data is on stable storage when the command is over",
            " -P BYTE what to write (0xcd)",
            " -q      print no figures",
            " -r      accepted without effect",
        ], count: 2...manyArguments, needsWriting: true
    ) { arguments, session throws(CommandFailure) in
        let options = try LetterOptions(arguments, letters: "CfqrP:", command: "writev")
        let pattern = try options.last("P").map(ArgumentValues.pattern)
        let (offset, lengths) = try VectorArguments.parse(options.operands)
        let disk = try session.disk()
        do throws(BlockError) { try disk.check(offset, lengths.reduce(0, +)) } catch { throw .failed("writev", error) }
        let buffer = TransferBuffer(lengths, isMisaligned: session.isMisaligned, filledWith: pattern ?? WriteRules.usualByte)
        defer { withExtendedLifetime(buffer) {} }
        let begin = MonotonicTime.now
        do throws(BlockError) {
            try await disk.write(buffer.vector, at: offset, flags: WriteRules.flags(options))
        } catch {
            throw .failed("writev", error)
        }
        TransferReport(verb: "wrote", offset: offset, byteCount: buffer.byteCount, style: .init(options)).print(since: begin)
    }
}

/// Which options of the writing commands go together, and what they mean to the block layer.
enum WriteRules {
    /// What is written when nobody says what.
    static let usualByte: UInt8 = 0xcd

    static func check(_ options: LetterOptions) throws(CommandFailure) {
        func has(_ letter: Character) -> Bool { options.contains(letter) }
        if has("b"), has("z") { throw .said("-b and -z cannot be specified at the same time") }
        if has("f"), has("b") || has("c") { throw .said("-f and -b or -c cannot be specified at the same time") }
        if has("n"), !has("z") { throw .said("-n requires -z to be specified") }
        if has("u"), !has("z") { throw .said("-u requires -z to be specified") }
        if ["z", "P", "s"].filter({ has($0) }).count > 1 { throw .said("Only one of -z, -P, and -s can be specified at the same time") }
    }

    /// Zeroes come out of no memory, so none can be registered for them.
    static func checkZeroes(_ options: LetterOptions) throws(CommandFailure) {
        if options.contains("r") { throw .said("cannot combine zero write with registered I/O buffer") }
    }

    static func flags(_ options: LetterOptions) -> RequestFlags {
        var flags: RequestFlags = []
        if options.contains("f") { flags.insert(.forceUnitAccess) }
        if options.contains("u") { flags.insert(.mayUnmap) }
        if options.contains("n") { flags.insert(.noFallback) }
        if options.contains("c"), !options.contains("z") { flags.insert(.compressed) }
        return flags
    }
}
