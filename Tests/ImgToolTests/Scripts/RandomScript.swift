import StrataTesting

/// A random sequence of commands on a handful of images. Most make sense; some have wrong options or images that do not exist.
struct RandomScript {
    /// The password of every encrypted image.
    static let password = "geheim"
    /// The object that holds it.
    static let secret = ["--object", "secret,id=k,data=\(password)"]

    private var random: SeededGenerator
    private(set) var commands: [[String]] = []
    /// Names that commands choose from; what they hold, if anything, the script decides as it goes.
    var formats: [String: String] = [:]
    /// Those that cannot be opened without a password.
    var encrypted: Set<String> = []
    /// Those that hold what `dd` has made: QEMU stores zeroes in them, we leave holes, through which another backing file would show.
    var copied: Set<String> = []
    /// Those with subclusters: we discard them one by one, QEMU whole clusters only.
    var divided: Set<String> = []
    /// Those in which QEMU looks up less than the whole image at once: in strict mode, how far that is counts.
    var finelyMapped: Set<String> = []
    /// As far as is known: no script makes a chain that bites its own tail, at which qemu-img never comes to an end.
    var backings: [String: String] = [:]
    private var snapshots = 0

    /// - Parameter length: commands, besides those that make the first images.
    init(seed: UInt64, length: Int) {
        random = SeededGenerator(seed: seed)
        for index in 0..<3 { create("i\(index)") }
        for _ in 0..<length { addCommand() }
    }

    // MARK: Chances

    mutating func number(below limit: Int) -> Int { Int(random.next() % UInt64(limit)) }
    mutating func chance(_ percent: Int) -> Bool { number(below: 100) < percent }
    mutating func one<Element>(of elements: [Element]) -> Element { elements[number(below: elements.count)] }
    /// `words` in so many of a hundred cases, else nothing.
    mutating func maybe(_ percent: Int, _ words: String...) -> [String] { chance(percent) ? words : [] }

    mutating func image() -> String { chance(4) ? "nosuch" : one(of: formats.keys.sorted()) }
    /// An image that can be read without a password.
    mutating func plainImage() -> String {
        let name = image()
        return encrypted.contains(name) ? "nosuch" : name
    }
    mutating func newName() -> String { "i\(number(below: 6))" }
    mutating func newSnapshot() -> String {
        snapshots += 1
        return chance(80) ? "s\(snapshots)" : "s1"
    }

    /// Now and then a format that does not fit; but never the plain bytes of a qcow2 image, since both programs may lay one out as they like.
    mutating func format(of name: String) -> String {
        let right = formats[name] ?? "raw"
        return chance(3) ? one(of: right == "raw" ? ["qcow2", "foo"] : ["foo"]) : right
    }
    mutating func formatOption(_ name: String, _ letter: String = "-f") -> [String] { chance(60) ? [letter, format(of: name)] : [] }

    /// The options in front of an image's name, and the name: with its format or without, or as a list of options. Whoever opens an encrypted one
    /// always has the password: which commands ask for it is a deliberate difference.
    mutating func opened(_ name: String) -> (options: [String], name: String) {
        if encrypted.contains(name) { return (Self.secret + ["--image-opts"], description(of: name)) }
        guard chance(12) else { return (formatOption(name), name) }
        let options = (chance(80) ? "driver=\(format(of: name))," : "") + "file.filename=\(name)"
        return (["--image-opts"] + maybe(5, "-f", "raw"), options)
    }

    /// The options that open an image, password included.
    func description(of name: String) -> String {
        encrypted.contains(name) ? "driver=qcow2,encrypt.key-secret=k,file.filename=\(name)" : "driver=\(formats[name] ?? "raw"),file.filename=\(name)"
    }

    /// An image and those below it.
    func chain(of name: String) -> [String] {
        var names = [name]
        while let last = names.last, let next = backings[last] { names.append(next) }
        return names
    }

    /// Whether `name` can be reached from `start`.
    func reaches(_ name: String, from start: String) -> Bool { chain(of: start).contains(name) }

    /// Whether an overlay shows the plain bytes of `name`, so that no qcow2 image may be put there: both programs may lay one out as they like.
    func isRawBacking(_ name: String) -> Bool { formats[name] == "raw" && backings.values.contains(name) }

    /// Bytes, in the notations that users have.
    mutating func size() -> String {
        one(of: ["512", "1k", "4097", "64k", "100000", "1M", "1.5M", "3M", "3145728", "5M", "0x200000", "4M"])
    }

    mutating func cacheOption(_ letter: String) -> [String] { chance(10) ? [letter, one(of: ["none", "writethrough", "unsafe", "directsync", "writeback"])] : [] }

    // MARK: Commands

    mutating func add(_ words: String...) { commands.append(words) }
    mutating func add(_ words: [String]) { commands.append(words) }

    private mutating func addCommand() {
        let name = image()
        switch number(below: 32) {
        case 0, 1: create(newName())
        case 2, 3, 4: io(name)
        case 5: lookAtBytes(name)
        case 6: resize(name)
        case 7, 8: snapshot(name)
        case 9, 10, 11: convert(name)
        case 12, 13, 14: rebase(name)
        case 15, 16: commit(name)
        case 17: check(name)
        case 18, 19: map(name)
        case 20: compare(name)
        case 21, 22: info(name)
        case 23: dd(name)
        case 24: wrong(name)
        case 25, 26: bitmap(name)
        case 27: measure(name)
        case 28: repair(name)
        case 29, 30: amend(name)
        default: bench(name)
        }
    }
}
