import BlockGraph
import IOCore
import QAPIRuntime
import StrataBase

// How tools open what their users name, report it when that fails, and close it.

extension ImageSession {
    /// Opens an image named on the command line, and warns if it is to be written to and its format is a guess.
    /// - Parameter keys: options to add, by their paths: what opens an image that was made a moment ago.
    /// - Throws: `Could not open 'NAME': CAUSE`.
    package func open(
        _ image: ImageArgument, keys: [(path: [String], value: String)] = [], _ settings: ImageSettings
    ) async throws(ToolFailure) -> OpenImage {
        do throws(BlockError) {
            var reference = image.isOptions ? try ImageReference(imageOptions: image.text) : try ImageReference(named: image.text, format: image.format)
            for key in keys { reference.options.set(key.path[...], to: .string(key.value)) }
            if !settings.isReadOnly, let wish = reference.options["read-only"], wish == true || wish == "on" { throw BlockError(.readOnly, "Block node is read-only") }
            let opened = try await open(reference, settings)
            opened.warnOfGuess()
            return opened
        } catch {
            throw ToolFailure("Could not open '\(image.text)'", error)
        }
    }

    /// Does the work of a command and then closes everything, whatever comes of it.
    /// - Throws: what the work throws, or else what keeps the last metadata from being written.
    package func closing<R>(_ progress: ProgressReporter? = nil, _ work: () async throws(ToolFailure) -> R) async throws(ToolFailure) -> R {
        let result: R
        do throws(ToolFailure) {
            result = try await work()
            do throws(BlockError) { try await close() } catch { throw ToolFailure(nil, error) }
        } catch {
            // What went wrong first is what the user needs to know.
            do { try await close() } catch {}
            progress?.end(succeeded: false)
            throw error
        }
        progress?.end(succeeded: true)
        return result
    }
}

extension JSONObject {
    /// Sets a member of an object inside of an object, and so on.
    fileprivate mutating func set(_ path: ArraySlice<String>, to value: JSONValue) {
        guard let first = path.first else { return }
        if path.count == 1 { return self[first] = value }
        var inner = self[first]?.object ?? JSONObject()
        inner.set(path.dropFirst(), to: value)
        self[first] = .object(inner)
    }
}

extension OpenImage {
    /// What a tool says before it writes to an image whose format it has guessed to be raw.
    package func warnOfGuess() {
        guard wasProbed, node.formatName == "raw", !node.isReadOnly else { return }
        let name = node.filename ?? node.primaryChild?.node.filename ?? reference.text
        StandardStreams.printError(
            """
            WARNING: Image format was not specified for '\(name)' and probing guessed raw.
                     Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.
                     Specify the 'raw' format explicitly to remove the restrictions.

            """)
    }
}
