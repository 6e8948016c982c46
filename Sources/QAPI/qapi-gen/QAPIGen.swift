import Glibc
import QAPIGenerator
import QAPISchema
import StrataBase

/// The schema compiler's command line.
@main
struct QAPIGen {
    static let usage = """
        usage: qapi-gen [--output-dir DIR] [--name NAME] [--define COND]... [--check] [--dump-model]
                        [--introspect FILE] [--unmasked] [--docs DIR] SCHEMA

          --output-dir DIR   where the Swift files go (default: the current directory)
          --name NAME        what names of the command table start with (default: QAPI)
          --define COND      a condition that holds for 'if'; may be given again
          --check            only check the schema
          --dump-model       print the model of the schema and stop; without --define, with all of its conditions
          --introspect FILE  write the answer to query-qmp-schema and stop
          --unmasked         with --introspect: keep the names of types
          --docs DIR         write the reference as Markdown into a folder that exists, and stop
        """

    static func main() {
        do throws(Failure) {
            try run(Array(CommandLine.arguments.dropFirst()))
        } catch {
            StandardText.printError(error.message)
            exit(1)
        }
    }

    private struct Failure: Error {
        let message: String
    }

    private static func run(_ arguments: [String]) throws(Failure) {
        var outputFolder = "."
        var name = "QAPI"
        var defines: Set<String> = []
        var onlyCheck = false
        var dumpsModel = false
        var introspectionFile: String?
        var documentationFolder: String?
        var unmasked = false
        var root: String?
        var rest = arguments[...]
        func value(of option: String) throws(Failure) -> String {
            guard let value = rest.popFirst() else { throw Failure(message: "qapi-gen: option '\(option)' needs a value") }
            return value
        }
        while let argument = rest.popFirst() {
            switch argument {
            case "--output-dir", "-o": outputFolder = try value(of: argument)
            case "--name": name = try value(of: argument)
            case "--define", "-D": defines.insert(try value(of: argument))
            case "--check": onlyCheck = true
            case "--dump-model": dumpsModel = true
            case "--introspect": introspectionFile = try value(of: argument)
            case "--docs": documentationFolder = try value(of: argument)
            case "--unmasked", "-u": unmasked = true
            case "--help", "-h":
                print(usage)
                return
            default:
                if argument.hasPrefix("-") { throw Failure(message: "qapi-gen: unknown option '\(argument)'\n\(usage)") }
                if let root { throw Failure(message: "qapi-gen: more than one schema: '\(root)' and '\(argument)'") }
                root = argument
            }
        }
        guard let root else { throw Failure(message: "qapi-gen: no schema given\n\(usage)") }

        let whole: Schema
        let schema: Schema
        do throws(SchemaError) {
            whole = try SchemaReader.schema(root: root) { path in try SmallFile.read(path) }
            // Conditions that nobody decided stay what they are: a check and the reference are about all of the schema.
            let generates = !(onlyCheck || dumpsModel || documentationFolder != nil)
            schema = generates || introspectionFile != nil || !defines.isEmpty ? try whole.applying(defines: defines) : whole
        } catch {
            throw Failure(message: error.description)
        }
        if dumpsModel { print(schema.dump, terminator: "") }
        if let introspectionFile {
            let lines = IntrospectionEmitter.lines(of: schema, unmasked: unmasked)
            try write(lines.joined(separator: "\n") + "\n", to: introspectionFile)
        }
        if let documentationFolder {
            for file in MarkdownEmitter.files(for: schema, titled: "The control interface") {
                try write(file.text, to: "\(documentationFolder)/\(file.name)")
            }
        }
        if onlyCheck || dumpsModel || introspectionFile != nil || documentationFolder != nil { return }
        for file in SwiftGenerator.files(for: schema, named: name) { try write(file.text, to: "\(outputFolder)/\(file.name)") }
    }

    /// A file that already says the same keeps its date, so that builds do not run again for nothing.
    private static func write(_ text: String, to path: String) throws(Failure) {
        let bytes = Array(text.utf8)
        if (try? SmallFile.read(path)) == bytes { return }
        do throws(BlockError) {
            try SmallFile.write(bytes, to: path)
        } catch {
            throw Failure(message: "qapi-gen: \(error)")
        }
    }
}
