import BlockGraph
import IOCore
import StrataBase

extension IOCommand {
    static let read = IOCommand(
        name: "read", alias: "r", arguments: "[-abCqrv] [-P pattern [-s off] [-l len]] off len", summary: "read bytes from the image",
        details: [
            " -b      read the VM state, not the disk",
            " -C      print the figures for a program: bytes,requests,time,bytes/s,requests/s",
            " -l LEN  check so many bytes (with -P)",
            " -P BYTE check that every byte read is this one",
            " -q      print no figures",
            " -s OFF  begin to check so many bytes further on (with -P)",
            " -v      show the bytes",
            " -p, -r  accepted without effect",
            "",
            " 'read -v 512 1k' shows one kilobyte from byte 512 on.",
        ], count: 2...manyArguments
    ) { arguments, session throws(CommandFailure) in
        let options = try LetterOptions(arguments, letters: "bCl:pP:qrs:v", command: "read")
        var checkedLength = try options.last("l").map(ArgumentValues.bytes)
        let pattern = try options.last("P").map(ArgumentValues.pattern)
        let checkedStart = try options.last("s").map(ArgumentValues.bytes)
        guard options.operands.count == 2, pattern != nil || (checkedLength == nil && checkedStart == nil) else { throw .usage(nil) }
        let offset = try ArgumentValues.bytes(options.operands[0])
        let byteCount = try ArgumentValues.bytes(options.operands[1])
        guard byteCount <= ArgumentValues.longestRequest else {
            throw .said("length cannot exceed \(ArgumentValues.longestRequest), given \(options.operands[1])")
        }
        let start = checkedStart ?? 0
        if checkedLength == nil { checkedLength = byteCount - start }
        guard let length = checkedLength, length >= 0, start <= byteCount, length <= byteCount - start else {
            throw .said("pattern verification range exceeds end of read data")
        }
        let disk = try session.disk()
        let isVMState = options.contains("b")
        if isVMState { try ArgumentValues.checkSectors(offset, byteCount) }
        do throws(BlockError) { if !isVMState { try disk.check(offset, byteCount) } } catch { throw .failed("read", error) }
        let buffer = TransferBuffer([byteCount], isMisaligned: session.isMisaligned, filledWith: 0xab)
        defer { withExtendedLifetime(buffer) {} }
        let begin = MonotonicTime.now
        do throws(BlockError) {
            if isVMState { try await disk.readVMState(buffer.vector, at: offset) } else { try await disk.read(buffer.vector, at: offset) }
        } catch {
            throw .failed("read", error)
        }
        let report = TransferReport(verb: "read", offset: offset, byteCount: byteCount, style: .init(options))
        let text = report.text(nanoseconds: max(1, MonotonicTime.now - begin))
        let isAsExpected = pattern.map { buffer.holds($0, at: start, byteCount: length) } ?? true
        if !isAsExpected { StandardStreams.print("Pattern verification failed at offset \(offset + start), \(length) bytes\n") }
        if options.contains("v"), !options.contains("q") { HexDump.print(buffer.vector, startingAt: offset) }
        StandardStreams.print(text)
        if !isAsExpected { throw .silent }
    }

    static let readv = IOCommand(
        name: "readv", arguments: "[-Cqrv] [-P pattern] off len [len..]", summary: "read bytes from the image",
        details: [
            " Reads into one buffer for each length.",
            " -C      print the figures for a program",
            " -P BYTE check that every byte read is this one",
            " -q      print no figures",
            " -v      show the bytes",
            " -r      accepted without effect",
        ], count: 2...manyArguments
    ) { arguments, session throws(CommandFailure) in
        let options = try LetterOptions(arguments, letters: "CP:qrv", command: "readv")
        let pattern = try options.last("P").map(ArgumentValues.pattern)
        let (offset, lengths) = try VectorArguments.parse(options.operands)
        let disk = try session.disk()
        do throws(BlockError) { try disk.check(offset, lengths.reduce(0, +)) } catch { throw .failed("readv", error) }
        let buffer = TransferBuffer(lengths, isMisaligned: session.isMisaligned, filledWith: 0xab)
        defer { withExtendedLifetime(buffer) {} }
        let begin = MonotonicTime.now
        do throws(BlockError) { try await disk.read(buffer.vector, at: offset) } catch { throw .failed("readv", error) }
        let report = TransferReport(verb: "read", offset: offset, byteCount: buffer.byteCount, style: .init(options))
        let text = report.text(nanoseconds: max(1, MonotonicTime.now - begin))
        let isAsExpected = pattern.map { buffer.holds($0, at: 0, byteCount: buffer.byteCount) } ?? true
        if !isAsExpected { StandardStreams.print("Pattern verification failed at offset \(offset), \(buffer.byteCount) bytes\n") }
        if options.contains("v"), !options.contains("q") { HexDump.print(buffer.vector, startingAt: offset) }
        StandardStreams.print(text)
        if !isAsExpected { throw .silent }
    }
}
