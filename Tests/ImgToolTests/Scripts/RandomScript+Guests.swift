extension RandomScript {
    private mutating func offset() -> Int { number(below: 4000) * 512 + (chance(10) ? number(below: 512) : 0) }
    private mutating func byteCount() -> Int { (1 + number(below: 400)) * 512 + (chance(10) ? number(below: 512) : 0) }

    /// A discard of whole clusters where that makes a difference.
    private mutating func discard(_ name: String, _ offset: Int, _ count: Int) -> String {
        let unit = divided.contains(name) ? 16 << 10 : 1
        return "discard \(chance(20) ? "-q " : "")\(offset / unit * unit) \((count + unit - 1) / unit * unit)"
    }

    /// A guest that writes.
    mutating func io(_ name: String) {
        let opened = openedByGuest(name)
        var words = ["io"] + opened.options + maybe(8, "-t", one(of: ["writethrough", "none", "unsafe"])) + maybe(4, "-d", "ignore") + maybe(4, "-n")
        for _ in 0..<1 + number(below: 4) {
            let (offset, count, pattern) = (offset(), byteCount(), 1 + number(below: 255))
            let command = switch number(below: 12) {
            case 0...4: "write -P \(pattern) \(offset) \(count)"
            case 5: "write -\(one(of: ["z", "zu", "zf", "z -u -f"])) \(offset) \(count)"
            case 6: discard(name, offset, count)
            case 7: "writev -P \(pattern) \(offset) \(count / 3) \(count - count / 3)"
            case 8: "aio_write -P \(pattern) \(offset) \(count)"
            case 9: one(of: ["flush", "length", "aio_flush", "truncate \(1 + number(below: 8))M", "write -f -P \(pattern) \(offset) \(count)", "write -q \(offset) \(count)"])
            case 10: one(of: ["write -P 300 0 4k", "write x 4k", "write 0", "foo", "write -z -P 3 0 4k", "write -u 0 512", "discard 0 3G", "write -1 512", "read -b -Z", "zone_report 0 1"])
            default: "read \(one(of: ["-q ", "-P 0 ", "-P \(pattern) ", "-v -q ", ""]))\(offset) \(count)"
            }
            words += ["-c", command]
            // What comes after it may reach the disk before it.
            if command.hasPrefix("aio_write") { words += ["-c", "aio_flush"] }
        }
        add(words + [opened.name])
    }

    /// A guest that only looks: both programs at the same image.
    mutating func lookAtBytes(_ name: String) {
        let opened = openedByGuest(name)
        var words = ["io", "-r"] + maybe(10, "-U") + opened.options
        for _ in 0..<1 + number(below: 4) {
            words += [
                "-c",
                one(of: [
                    "read -v \(offset()) \(1 + number(below: 40))", "read -P 0 \(offset()) \(byteCount())", "readv \(offset()) \(byteCount()) \(byteCount())", "alloc \(offset()) \(byteCount())", "map", "length",
                    "aio_read -P \(number(below: 256)) \(offset()) \(byteCount())", "read -P 3 -s \(number(below: 600)) -l \(number(below: 600)) \(offset()) \(byteCount())", "write 0 512", "discard 0 4k", "flush",
                ]),
            ]
        }
        add(words + [opened.name])
    }

    /// qemu-io's options for an image: it guesses no format here, because a guessed raw disk refuses some writes.
    private mutating func openedByGuest(_ name: String) -> (options: [String], name: String) {
        if encrypted.contains(name) { return (Self.secret + ["--image-opts"], description(of: name)) }
        if chance(10) { return (["--image-opts"], description(of: name)) }
        return (["-f", formats[name] ?? "raw"], name)
    }
}
