package import QAPIRuntime

/// Handlers of the sample schema's commands.
package struct Workshop: SampleSchemaCommands {
    package init() {}

    package static let board = Board(length: 900, width: 4, grain: 0.5)

    package func sawBoards(_ arguments: SawBoardsArguments) async throws -> [Board] { arguments.boards }
    package func hewBoards() async throws {}
    package func tryLaser() async throws -> Board { Self.board }
    package func doJob(_ arguments: WorkJob) async throws { if arguments.kind == .rest { throw QMPError("lazy", class: .deviceNotActive) } }
    package func talk(_ arguments: JSONObject) async throws -> JSONValue { .object(arguments) }
    package func queryOrders() async throws -> [Order] { [] }

    /// Runs one command and gives its answer as text, or the class and sentence of its error.
    package static func run(_ command: String, _ arguments: JSONValue = [:], _ policy: CompatPolicy = CompatPolicy()) async -> String {
        guard let entry = SampleSchemaTable.commands(Workshop()).first(where: { $0.name == command }) else { return "no such command" }
        do {
            return try await entry.run(arguments.object ?? JSONObject(), policy: policy).text()
        } catch {
            let error = QMPError(error)
            return "\(error.errorClass.rawValue): \(error.message)"
        }
    }
}
