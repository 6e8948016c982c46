import IOCore
import StrataBase

// Counting votes. Where two opinions have equally many, that of the later children wins, as in QEMU 10.0.2.

/// What several readers have found in the same place, grouped by content.
struct ContentVotes {
    struct Version {
        let content: IOVector
        /// Positions of children, ascending.
        var children: [Int]
    }

    private(set) var versions: [Version] = []

    /// - Parameter ballots: what each child has read, in the order of the children. The memory outlives the votes.
    init(_ ballots: [(child: Int, content: IOVector)]) {
        for ballot in ballots {
            if let known = versions.firstIndex(where: { $0.content.firstDifference(from: ballot.content) == nil }) {
                versions[known].children.append(ballot.child)
            } else {
                versions.append(Version(content: ballot.content, children: [ballot.child]))
            }
        }
    }

    /// The version that most children have; nil when nobody has voted.
    var winner: Int? { winnerIndex(versions.map(\.children.count)) }
}

enum ErrorVotes {
    /// The error that most children report; the first of its kind. Nil when there are none.
    static func winner(_ errors: [BlockError]) -> BlockError? {
        var kinds: [(error: BlockError, count: Int)] = []
        for error in errors {
            if let known = kinds.firstIndex(where: { $0.error.errno == error.errno }) {
                kinds[known].count += 1
            } else {
                kinds.append((error, 1))
            }
        }
        return winnerIndex(kinds.map(\.count)).map { kinds[$0].error }
    }
}

/// The position of the largest count, the last one among equals.
private func winnerIndex(_ counts: [Int]) -> Int? { counts.indices.max { (counts[$0], $0) < (counts[$1], $1) } }
