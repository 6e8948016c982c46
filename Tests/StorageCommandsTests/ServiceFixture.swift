import Foundation
import IOCore
import QAPIRuntime
import StorageCommands
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization

/// A service on a context of its own, spoken to as a monitor would: by name, with JSON.
final class ServiceFixture: Sendable {
    let context: IOContext
    let service: StorageService
    private let commands: [String: CommandEntry]
    private let heard: EventLog

    init() throws {
        context = try IOContext.startThread(name: "commands test")
        let heard = EventLog()
        self.heard = heard
        service = StorageService(context: context) { heard.append($0) }
        commands = Dictionary(StorageSchemaTable.commands(service).map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    }

    /// The answer as it would go over the wire, without an id.
    func execute(_ name: String, _ arguments: JSONValue = [:]) async -> JSONValue {
        guard let entry = commands[name], let object = arguments.object else { return ["error": "no such command"] }
        return await Task(executorPreference: context) { () async -> JSONValue in
            do { return ["return": try await entry.run(object)] } catch { return ["error": QMPError(error).json] }
        }.value
    }

    /// The description of the error that the command answers; nil when it succeeds.
    func failure(_ name: String, _ arguments: JSONValue = [:]) async -> String? { await execute(name, arguments)["error"]?["desc"]?.string }

    /// Suspends until an event of that name has come, and returns its data.
    func event(_ name: String) async -> JSONValue { await heard.next(name) }

    func stop() async throws {
        let service = service
        let outcome = await Task(executorPreference: context) { () async -> Result<Void, BlockError> in
            do throws(BlockError) { return .success(try await service.shutDown()) } catch { return .failure(error) }
        }.value
        context.stop()
        context.join()
        try outcome.get()
    }
}

/// Events in the order in which they came; each is taken once.
private final class EventLog: Sendable {
    private let events = AsyncCondition<[(name: String, data: JSONValue)]>([])

    func append(_ event: any QAPIEvent) {
        let (name, data) = (type(of: event).eventName, event.json)
        events.update { $0.append((name, data)) }
    }

    func next(_ name: String) async -> JSONValue {
        await events.wait { events in events.firstIndex { $0.name == name }.map { events.remove(at: $0).data } }
    }
}

/// A folder for the files of one test; removed with the last reference.
final class Scratch: Sendable {
    let path: String

    init() throws {
        let base = FileManager.default.isWritableFile(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()
        path = base + "/strata-commands-" + UUID().uuidString.prefix(8)
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }

    /// An empty raw disk.
    func disk(_ name: String, byteCount: Int) -> String {
        _ = FileManager.default.createFile(atPath: file(name), contents: nil)
        truncate(file(name), byteCount)
        return file(name)
    }
}

/// Runs an independent program with text on its standard input, which must succeed, and returns what it printed.
@discardableResult
func run(_ tool: String, _ arguments: [String], input: String = "") throws -> String { try mustRun(tool, arguments, input: Data(input.utf8)).text }
