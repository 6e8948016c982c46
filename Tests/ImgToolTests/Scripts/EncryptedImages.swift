import Foundation
import StrataTesting
import Synchronization

/// New encrypted images, made once for each kind: qemu-img measures for a second how fast it can derive keys, whatever `iter-time` says, which is longer than
/// all the rest of a script takes. The extended run makes each one anew.
final class EncryptedImages: Sendable {
    static let shared = EncryptedImages()

    private let made = Mutex<[[String]: Data]>([:])

    /// What `create ... NAME SIZE` of an encrypted image without a backing file makes; nil for any other command.
    func image(for command: [String]) throws -> Data? {
        guard !extendedRun, command.first == "create", command.contains(where: { $0.hasPrefix("encrypt.") }), !command.contains("-b") else { return nil }
        var words = command.filter { $0 != "-q" }
        words[words.count - 2] = "image"
        return try made.withLock { made in
            if let known = made[words] { return known }
            let folder = try TemporaryFolder()
            try mustRun(ToolPair.qemu, words, in: folder.url)
            let image = try Data(contentsOf: folder.url.appendingPathComponent("image"))
            made[words] = image
            return image
        }
    }
}
