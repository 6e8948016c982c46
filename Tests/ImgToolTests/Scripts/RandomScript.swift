import StrataTesting

/// A random sequence of commands on a handful of images. Most make sense; some have wrong options or images that do not exist.
struct RandomScript {
    private var random: SeededGenerator
    private(set) var commands: [[String]] = []
    /// Names that commands choose from; what they hold, if anything, the script decides as it goes.
    private var formats: [String: String] = [:]
    /// As far as is known: no script makes a chain that bites its own tail, at which qemu-img never comes to an end.
    private var backings: [String: String] = [:]
    private var snapshots = 0

    /// - Parameter length: commands, besides those that make the first images.
    init(seed: UInt64, length: Int) {
        random = SeededGenerator(seed: seed)
        for index in 0..<3 { create("i\(index)") }
        for _ in 0..<length { addCommand() }
    }

    // MARK: Chances

    private mutating func number(below limit: Int) -> Int { Int(random.next() % UInt64(limit)) }
    private mutating func chance(_ percent: Int) -> Bool { number(below: 100) < percent }
    private mutating func one<Element>(of elements: [Element]) -> Element { elements[number(below: elements.count)] }

    private mutating func image() -> String { chance(4) ? "nosuch" : one(of: formats.keys.sorted()) }
    private mutating func newName() -> String { "i\(number(below: 6))" }
    /// Now and then a format that does not fit; but never the plain bytes of a qcow2 image, since both programs may lay one out as they like.
    private mutating func format(of name: String) -> String {
        let right = formats[name] ?? "raw"
        return chance(3) ? one(of: right == "raw" ? ["qcow2", "foo"] : ["foo"]) : right
    }
    private mutating func formatOption(_ name: String, _ letter: String = "-f") -> [String] { chance(60) ? [letter, format(of: name)] : [] }

    /// Whether `name` can be reached from `start`.
    private func reaches(_ name: String, from start: String) -> Bool {
        var next: String? = start
        while let current = next {
            if current == name { return true }
            next = backings[current]
        }
        return false
    }

    /// Bytes, in the notations that users have.
    private mutating func size() -> String {
        one(of: ["512", "1k", "4097", "64k", "100000", "1M", "1.5M", "3M", "3145728", "5M", "0x200000", "4M"])
    }

    private mutating func imageOptions() -> [String] {
        chance(50) ? [] : ["-o", one(of: ["cluster_size=512", "cluster_size=4k", "cluster_size=2M", "compat=0.10", "lazy_refcounts=on", "refcount_bits=8", "refcount_bits=64", "compat=1.1,cluster_size=16k"])]
    }

    // MARK: Commands

    private mutating func add(_ words: String...) { commands.append(words) }
    private mutating func add(_ words: [String]) { commands.append(words) }

    private mutating func create(_ name: String) {
        let format = one(of: ["qcow2", "qcow2", "qcow2", "raw"])
        var words = ["create", "-f", format]
        let below = formats.keys.sorted().filter { !reaches(name, from: $0) }
        backings[name] = nil
        if format == "qcow2", !below.isEmpty, chance(60) {
            let backing = one(of: below)
            backings[name] = backing
            words += ["-b", backing, "-F", self.format(of: backing)] + imageOptions() + [name]
            if chance(30) { words.append(size()) }
        } else {
            words += (format == "qcow2" ? imageOptions() : []) + [name, one(of: ["1M", "3M", "5M", "4097", "2M"])]
        }
        formats[name] = format
        commands.append(words)
        if chance(70) { io(name) }
    }

    private mutating func io(_ name: String) {
        var words = ["io", "-f", formats[name] ?? "raw"]
        for _ in 0..<1 + number(below: 4) {
            let offset = number(below: 4000) * 512
            let count = (1 + number(below: 400)) * 512
            let kind = one(of: ["write -P \(1 + number(below: 255))", "write -P \(1 + number(below: 255))", "write -z", "write -z -u", "discard"])
            words += ["-c", "\(kind) \(offset) \(count)"]
        }
        add(words + [name])
    }

    private mutating func addCommand() {
        let name = image()
        switch number(below: 24) {
        case 0: create(newName())
        case 1, 2, 3: io(name)
        case 4:
            let shrink = chance(50) ? ["--shrink"] : []
            let preallocation = chance(10) ? ["--preallocation", one(of: ["off", "metadata", "full", "foo"])] : []
            add(["resize"] + shrink + preallocation + formatOption(name) + [name, one(of: ["", "", "+", "-"]) + size()])
        case 5, 6: snapshot(name)
        case 7, 8: convert(name)
        case 9, 10: rebase(name)
        case 11:
            let base = chance(25) ? ["-b", image()] : []
            add(["commit"] + (chance(30) ? ["-d"] : []) + base + formatOption(name) + (chance(20) ? ["-q"] : []) + [name])
        case 12: add(["check"] + (chance(30) ? ["--output=json"] : []) + formatOption(name) + (chance(20) ? ["-q"] : []) + [name])
        case 13, 14: add(["map"] + (chance(50) ? ["--output", chance(95) ? "json" : "xml"] : []) + (chance(20) ? ["--start-offset", size(), "--max-length", size()] : []) + formatOption(name) + [name])
        case 15: add(["compare"] + (chance(30) ? ["-s"] : []) + (chance(10) ? ["-q"] : []) + [name, image()])
        case 16: add(["info"] + (chance(40) ? ["--output=json"] : []) + (chance(40) ? ["--backing-chain"] : []) + formatOption(name) + [name])
        case 17: dd(name)
        case 18: wrong(name)
        case 19, 20: bitmap(name)
        case 21: measure(name)
        case 22: add(["check", "-r", one(of: ["leaks", "all", "all", "foo"])] + (chance(30) ? ["--output=json"] : []) + formatOption(name) + [name])
        default: add(["info", "-U", name])
        }
    }

    private mutating func snapshot(_ name: String) {
        if chance(8) { return add(["snapshot"] + one(of: [["-c", "x", "-l"], ["-l", "-d", "s1"], ["-a"], ["-c", ""], ["-f", "foo", "-l"], ["-q", "-U", "-l"], ["-U", "-c", "x"]]) + [name]) }
        switch number(below: 5) {
        case 0, 1:
            snapshots += 1
            add("snapshot", "-c", chance(80) ? "s\(snapshots)" : "s1", name)
        case 2: add("snapshot", "-a", one(of: ["s1", "s2", "1", "2", "nosuch"]), name)
        case 3: add("snapshot", "-d", one(of: ["s1", "s2", "1", "nosuch"]), name)
        default: add(["snapshot"] + (chance(50) ? ["-l"] : []) + [name])
        }
    }

    private mutating func convert(_ name: String) {
        let target = newName()
        guard target != name else { return }
        let format = one(of: ["qcow2", "qcow2", "raw"])
        var words = ["convert"] + formatOption(name) + ["-O", format]
        if format == "qcow2" { words += imageOptions() }
        if chance(20) { words.append("-c") }
        if chance(15) { words += ["-S", one(of: ["0", "4k", "64k", "1"])] }
        if chance(15) { words += ["-m", one(of: ["1", "8", "17"])] }
        if chance(10) { words.append("-W") }
        if chance(10) { words += ["-l", one(of: ["s1", "1", "nosuch"])] }
        // Not a mode that there is none of: QEMU makes the target first and complains then, ours the other way round.
        if chance(10) { words += ["-t", one(of: ["none", "writethrough", "unsafe", "unsafe"])] }
        backings[target] = nil
        if chance(10), format == "qcow2" {
            let backing = image()
            if reaches(target, from: backing) { return }
            words += ["-B", backing, "-F", one(of: ["raw", "qcow2"])]
            backings[target] = backing
        }
        words += [name] + (chance(8) ? [image()] : []) + [target]
        add(words)
        formats[target] = format
    }

    private mutating func rebase(_ name: String) {
        let backing = chance(25) ? "" : image()
        guard !reaches(name, from: backing) else { return }
        backings[name] = backing.isEmpty ? nil : backing
        add(["rebase"] + (chance(20) ? ["-c"] : []) + formatOption(name) + ["-b", backing] + (chance(90) ? ["-F", format(of: backing)] : []) + [name])
    }

    private mutating func dd(_ name: String) {
        let target = newName()
        guard target != name else { return }
        let format = one(of: ["raw", "qcow2"])
        var words = ["dd"] + formatOption(name) + ["-O", format]
        if chance(50) { words.append("bs=\(one(of: ["512", "1000", "4k", "1M", "0"]))") }
        if chance(40) { words.append("count=\(number(below: 300))") }
        if chance(40) { words.append("skip=\(number(below: 100))") }
        add(words + ["if=\(name)", "of=\(target)"])
        formats[target] = format
    }

    /// Command lines that no tool can do anything with.
    private mutating func wrong(_ name: String) {
        let command = one(of: ["create", "info", "check", "map", "compare", "convert", "rebase", "commit", "resize", "snapshot", "dd"])
        switch number(below: 5) {
        case 0: add(command, "-Z", name)
        case 1: add(command)
        case 2: add(command, "--nosuch=1", name)
        case 3: add(command, "-f", "foo", name, name)
        default: add(command, name, "x", "y", "z")
        }
    }

    private mutating func bitmap(_ name: String) {
        var words = ["bitmap"]
        for _ in 0..<1 + number(below: 2) { words += one(of: [["--add"], ["--add"], ["--remove"], ["--clear"], ["--enable"], ["--disable"], ["--merge", one(of: ["b1", "b2", "nosuch"])]]) }
        if chance(25) { words += ["-g", one(of: ["4k", "64k", "1M", "3", "256"])] }
        if chance(15) {
            let source = image()
            // Whether an image can be read while it is open for writing is a matter of locks.
            if source != name { words += ["-b", source] + formatOption(source, "-F") }
        }
        add(words + formatOption(name) + [name, one(of: ["b1", "b1", "b2", "b3"])])
    }

    private mutating func measure(_ name: String) {
        var words = ["measure"] + (chance(70) ? ["-O", one(of: ["qcow2", "qcow2", "raw", "foo"])] : []) + (chance(30) ? ["--output=json"] : [])
        if chance(30) { words += imageOptions() }
        if chance(10) { words += ["-l", one(of: ["s1", "1", "nosuch"])] }
        if chance(20) { return add(words + ["--size", size()]) }
        add(words + formatOption(name) + [name])
    }
}
