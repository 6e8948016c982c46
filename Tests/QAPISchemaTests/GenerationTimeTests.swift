import Glibc
import QAPIGenerator
import QAPISchema
import Testing

@Suite("Time that the compiler takes")
struct GenerationTimeTests {
    /// A schema of at least 7,000 lines with as many members, branches and comments as real ones have.
    private static let large: [UInt8] = {
        var text = ""
        var lines = 0
        var number = 0
        while lines < 7000 {
            let part = """
                ##
                # @Mode\(number):
                #
                # What to do.
                #
                # @fast: at once
                #
                # @slow: later
                #
                # Since: 1.\(number)
                ##
                { 'enum': 'Mode\(number)', 'data': [ 'fast', 'slow' ] }

                ##
                # @Item\(number):
                #
                # A thing.
                #
                # @name: what it is called
                #
                # @size: how large it is, in bytes
                #
                # @others: what belongs to it
                #
                # @mode: how it is handled
                #
                # Since: 1.\(number)
                ##
                { 'struct': 'Item\(number)',
                  'data': { 'name': 'str',
                            '*size': 'size',
                            '*others': [ 'Item\(number)' ],
                            '*mode': 'Mode\(number)' } }

                ##
                # @Task\(number):
                #
                # @mode: which of both
                #
                # @id: its name
                ##
                { 'union': 'Task\(number)',
                  'base': { 'mode': 'Mode\(number)', 'id': 'str' },
                  'discriminator': 'mode',
                  'data': { 'fast': 'Item\(max(0, number - 1))Part' } }

                ##
                # @Item\(number)Part:
                #
                # @length: in bytes
                #
                # @task: what to do with it
                ##
                { 'struct': 'Item\(number)Part', 'data': { '*length': 'int', '*task': 'Task\(number)' } }

                ##
                # @do-task\(number):
                #
                # Does it.
                #
                # @task: what to do
                #
                # Returns: what came of it
                ##
                { 'command': 'do-task\(number)', 'data': { 'task': 'Task\(number)', '*wait': 'bool' }, 'returns': [ 'Item\(number)' ] }


                """
            text += part
            lines += part.utf8.count { $0 == UInt8(ascii: "\n") }
            number += 1
        }
        return Array(text.utf8)
    }()

    /// Processor time of this thread in seconds, which other tests do not add to.
    private static func processorTime() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    @Test("a schema of 7,000 lines becomes Swift and introspection in less than 2 seconds of a debug build")
    func generation() throws {
        let large = Self.large
        let start = Self.processorTime()
        let schema = try SchemaReader.schema(root: "large.json") { _ in large }.applying(defines: [])
        let files = SwiftGenerator.files(for: schema, named: "Large")
        let elapsed = Self.processorTime() - start
        #expect(files.reduce(0) { $0 + $1.text.utf8.count } > 500_000)
        #expect(elapsed < 2, "\(elapsed) s")
    }
}
