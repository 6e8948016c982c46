internal import CStrataLinux
import Glibc
package import StrataBase
import Synchronization

/// Open files that were passed to this process, in numbered sets (`--add-fd`, `add-fd`). The members of a set are one file opened in different
/// ways; the name `/dev/fdset/N` stands for whichever of them fits what is to be done.
///
/// A member stays open until it is removed. Whoever opens the name gets a duplicate, which outlives the member; a set is forgotten when it has
/// neither members nor duplicates. All calls may be made from any thread.
package final class DescriptorSets: Sendable {
    package struct Member: Sendable, Hashable {
        package var descriptor: Int32
        /// A note of whoever added it, which means nothing to us.
        package var opaque: String?
    }

    package struct Contents: Sendable, Hashable {
        package var number: Int
        package var members: [Member]
    }

    private struct DescriptorSet {
        var members: [(file: OwnedDescriptor, opaque: String?)] = []
        var leases = 0
    }

    private let sets = Mutex<[Int: DescriptorSet]>([:])

    package init() {}

    /// Keeps a set known as long as a duplicate is in use.
    package final class Lease: Sendable {
        let sets: DescriptorSets
        let number: Int
        private let isOver = Atomic<Bool>(false)

        fileprivate init(_ sets: DescriptorSets, _ number: Int) {
            self.sets = sets
            self.number = number
        }

        deinit { end() }

        /// The duplicate is closed.
        func end() { if !isOver.exchange(true, ordering: .acquiringAndReleasing) { sets.endLease(number) } }
    }

    private static let prefix = "/dev/fdset/"

    /// Whether the name is that of a set rather than of a file.
    package static func isName(_ path: String) -> Bool { path.hasPrefix(prefix) }

    /// - Throws: for a name that begins like a set's and does not end in a number.
    private static func number(of path: String) throws(BlockError) -> Int {
        guard let number = Int(path.dropFirst(prefix.utf8.count)), number >= 0 else {
            throw BlockError(.invalidArgument, "Could not parse fdset '\(path)': a number is expected after '\(prefix)'")
        }
        return number
    }

    // MARK: What users do

    /// Adds an open file.
    /// - Parameter number: the set; nil makes a new one with the lowest number that is free.
    package func add(_ file: OwnedDescriptor, toSet number: Int?, opaque: String?) throws(BlockError) -> (number: Int, descriptor: Int32) {
        if let number, number < 0 { throw BlockError(.invalidArgument, "Parameter 'fdset-id' expects a non-negative value") }
        let access = strata_descriptor_access(file.descriptor)
        if access < 0 { throw BlockError(errno: -access, "Could not use file descriptor \(file.descriptor)") }
        return sets.withLock { sets in
            var chosen = number ?? 0
            if number == nil { while sets[chosen] != nil { chosen += 1 } }
            sets[chosen, default: DescriptorSet()].members.append((file, opaque))
            return (chosen, file.descriptor)
        }
    }

    /// Closes one member of a set, or all. Duplicates stay open.
    package func remove(_ descriptor: Int32?, fromSet number: Int) throws(BlockError) {
        // The files are closed after the lock is given back.
        let removed = sets.withLock { sets -> [OwnedDescriptor] in
            guard var set = sets[number] else { return [] }
            let gone = set.members.filter { descriptor == nil || $0.file.descriptor == descriptor }
            set.members.removeAll { descriptor == nil || $0.file.descriptor == descriptor }
            sets[number] = set.members.isEmpty && set.leases == 0 ? nil : set
            return gone.map(\.file)
        }
        if removed.isEmpty {
            let which = descriptor.map { "fdset-id:\(number), fd:\($0)" } ?? "fdset-id:\(number)"
            throw BlockError(.notFound, "File descriptor named '\(which)' not found")
        }
    }

    /// Every set, by number.
    package var contents: [Contents] {
        sets.withLock { sets in
            sets.keys.sorted().map { number in
                Contents(number: number, members: (sets[number]?.members ?? []).map { Member(descriptor: $0.file.descriptor, opaque: $0.opaque) })
            }
        }
    }

    // MARK: What files do

    /// A duplicate of the member of the set named `path` that is open in the way asked for.
    /// - Throws: `.accessDenied`, saying which kind of member is missing.
    func open(_ path: String, _ options: HostFile.OpenOptions) throws(BlockError) -> (descriptor: Int32, lease: Lease) {
        try duplicate(from: try Self.number(of: path), options)
    }

    func duplicate(from number: Int, _ options: HostFile.OpenOptions) throws(BlockError) -> (descriptor: Int32, lease: Lease) {
        let wanted = Int32(STRATA_ACCESS_READ) | (options.writable ? Int32(STRATA_ACCESS_WRITE) : 0) | (options.direct ? Int32(STRATA_ACCESS_DIRECT) : 0)
        let result = sets.withLock { sets -> Int32? in
            guard let set = sets[number] else { return nil }
            guard let member = set.members.first(where: { strata_descriptor_access($0.file.descriptor) == wanted }) else { return -EACCES }
            let copy = strata_duplicate(member.file.descriptor)
            if copy >= 0 { sets[number]?.leases += 1 }
            return copy
        }
        let kind = options.writable ? "read-write" : "read-only"
        guard let copy = result else { throw BlockError(.notFound, "There is no fdset \(number)") }
        if copy == -EACCES {
            let cache = options.direct ? " that was opened with O_DIRECT, as cache.direct=on needs" : ""
            let use = options.writable ? "; writing to it needs one" : ""
            throw BlockError(.accessDenied, "fdset \(number) has no \(kind) descriptor\(cache)\(use)")
        }
        if copy < 0 { throw BlockError(errno: -copy, "Could not duplicate the \(kind) descriptor of fdset \(number)") }
        return (copy, Lease(self, number))
    }

    private func endLease(_ number: Int) {
        sets.withLock { sets in
            guard var set = sets[number] else { return }
            set.leases -= 1
            sets[number] = set.members.isEmpty && set.leases == 0 ? nil : set
        }
    }
}
