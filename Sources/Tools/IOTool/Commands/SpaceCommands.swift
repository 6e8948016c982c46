import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import ToolSupport

extension IOCommand {
    static let discard = IOCommand(
        name: "discard", alias: "d", arguments: "[-Cq] off len", summary: "give bytes of the image back",
        details: [
            " -C      print the figures for a program",
            " -q      print no figures",
        ], count: 2...manyArguments, needsWriting: true
    ) { arguments, session throws(CommandFailure) in
        let options = try LetterOptions(arguments, letters: "Cq", command: "discard")
        guard options.operands.count == 2 else { throw .usage(nil) }
        let offset = try ArgumentValues.bytes(options.operands[0])
        let byteCount = try ArgumentValues.bytes(options.operands[1])
        guard byteCount <= ArgumentValues.longestRequest else {
            throw .said("length cannot exceed \(ArgumentValues.longestRequest), given \(options.operands[1])")
        }
        let disk = try session.disk()
        let begin = MonotonicTime.now
        do throws(BlockError) {
            try await disk.discard(at: offset, byteCount: byteCount)
        } catch {
            throw .failed("discard", error)
        }
        TransferReport(verb: "discard", offset: offset, byteCount: byteCount, style: .init(options)).print(since: begin)
    }

    static let flush = IOCommand(name: "flush", alias: "f", summary: "make what was written durable", count: 0...0) { _, session throws(CommandFailure) in
        let disk = try session.disk()
        do throws(BlockError) { try await disk.flush() } catch { throw .failed("flush", error) }
    }

    static let truncate = IOCommand(
        name: "truncate", alias: "t", arguments: "[-m prealloc_mode] off", summary: "change the size of the image", count: 1...3,
        needsWriting: true
    ) { arguments, session throws(CommandFailure) in
        let options = try LetterOptions(arguments, letters: "m:", command: "truncate")
        var mode = PreallocMode.off
        if let word = options.last("m") {
            guard let known = PreallocMode(rawValue: word) else { throw .reported("Invalid preallocation mode '\(word)'") }
            mode = known
        }
        // Further sizes are of no interest; without any, the complaint is about the first word.
        guard let text = options.operands.first ?? arguments.first else { throw .usage(nil) }
        let byteCount = try ArgumentValues.bytes(text)
        let backend = try session.disk().image.backend
        do throws(BlockError) { try await backend.resize(to: byteCount, preallocation: mode) } catch { throw .reported(error.description) }
    }

    static let length = IOCommand(name: "length", alias: "l", summary: "print the size of the image", count: 0...0) { _, session throws(CommandFailure) in
        StandardStreams.print("\(SizeText.of(try session.disk().length))\n")
    }

    static let alloc = IOCommand(
        name: "alloc", alias: "a", arguments: "offset [count]", summary: "count the bytes that the image itself holds", count: 1...2
    ) { arguments, session throws(CommandFailure) in
        let disk = try session.disk()
        let offset = try ArgumentValues.bytes(arguments[0])
        let wanted = arguments.count > 1 ? try ArgumentValues.bytes(arguments[1]) : Disk.sectorSize
        let byteCount = max(0, min(wanted, disk.length - min(offset, disk.length)))
        var (position, allocated) = (0, 0)
        while position < byteCount {
            let run: (isAllocated: Bool, byteCount: Int)
            do throws(BlockError) {
                run = try await disk.isAllocated(at: offset + position, byteCount: byteCount - position)
            } catch {
                throw .failed("is_allocated", error)
            }
            if run.isAllocated { allocated += run.byteCount }
            position += run.byteCount
        }
        StandardStreams.print("\(allocated)/\(byteCount) bytes allocated at offset \(SizeText.of(offset))\n")
    }

    static let map = IOCommand(name: "map", summary: "list what the image itself holds and what not", count: 0...0) { _, session throws(CommandFailure) in
        let disk = try session.disk()
        let end = disk.length
        var position = 0
        while position < end {
            let run: (isAllocated: Bool, byteCount: Int)
            do throws(BlockError) {
                run = try await disk.isAllocated(at: position, byteCount: end - position)
            } catch {
                throw .reported("Failed to get allocation status: \(BlockError.text(ofErrno: error.errno))")
            }
            let what = run.isAllocated ? "    allocated" : "not allocated"
            StandardStreams.print(
                "\(SizeText.of(run.byteCount)) (0x\(String(run.byteCount, radix: 16))) bytes \(what) at offset \(SizeText.of(position)) (0x\(String(position, radix: 16)))\n")
            position += run.byteCount
        }
    }
}
