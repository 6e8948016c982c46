import BlockGraph
import StrataBase

// How tools open what their users name, and report it when that fails.

extension ImageSession {
    /// Opens an image named on the command line.
    /// - Parameters:
    ///   - isOptions: whether the text is options (`--image-opts`) rather than a name.
    ///   - format: what `-f` says.
    /// - Throws: `Could not open 'NAME': CAUSE`.
    package func open(
        _ text: String, isOptions: Bool = false, format: String? = nil, _ settings: ImageSettings
    ) async throws(ToolFailure) -> OpenImage {
        do throws(BlockError) {
            let reference = isOptions ? try ImageReference(imageOptions: text) : try ImageReference(named: text, format: format)
            return try await open(reference, settings)
        } catch {
            throw ToolFailure("Could not open '\(text)'", error)
        }
    }
}

extension OpenImage {
    /// What a tool says before it writes to an image whose format it has guessed to be raw.
    package var probingWarning: String? {
        guard wasProbed, node.formatName == "raw" else { return nil }
        return """
            WARNING: Image format was not specified for '\(reference.text)' and probing guessed raw.
                     Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.
                     Specify the 'raw' format explicitly to remove the restrictions.

            """
    }
}
