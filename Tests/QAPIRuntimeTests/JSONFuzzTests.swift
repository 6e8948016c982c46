import Foundation
import QAPIRuntime
import StrataTesting
import Testing

@Suite("JSON from strangers")
struct JSONFuzzTests {
    /// A million in all, over the four tests below.
    private static let inputCount = 1_000_000 / 4

    private static let alphabet =
        Array(#"{}[]:,"'\u0129.eE+-truefalsn "#.utf8) + [0x00, 0x0a, 0x7f, 0xc0, 0xc3, 0xa9, 0xed, 0xa0, 0xf0, 0x9f, 0x98, 0x80, 0xfe, 0xff]
    private static let messages = [
        #"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#, #"{"exec-oob":"migrate-pause","id":[1,{"a":null}]}"#,
        #"{"execute":"blockdev-add","arguments":{"driver":"qcow2","node-name":"n","file":{"driver":"file","filename":"/x\u00e9\ud83d\ude00"}}}"#,
        #"{'execute':'query-version','id':-12.5e-3}"#, "[1,-2,3.25,1e10,true,false,null,\"\",[],{}]",
    ].map { Array($0.utf8) }

    /// Random bytes, random tokens, or a message with a few bytes changed, cut out or doubled.
    private static func input(_ random: inout SeededGenerator) -> [UInt8] {
        func bytes(_ limit: Int) -> [UInt8] { (0..<Int.random(in: 0...limit, using: &random)).map { _ in UInt8(truncatingIfNeeded: random.next()) } }
        switch random.next() % 4 {
        case 0: return bytes(24)
        case 1: return (0..<Int.random(in: 0...24, using: &random)).map { _ in alphabet[Int.random(in: 0..<alphabet.count, using: &random)] }
        default:
            var message = messages[Int.random(in: 0..<messages.count, using: &random)]
            for _ in 0..<Int.random(in: 0...3, using: &random) where !message.isEmpty {
                let place = Int.random(in: 0..<message.count, using: &random)
                switch random.next() % 4 {
                case 0: message[place] = alphabet[Int.random(in: 0..<alphabet.count, using: &random)]
                case 1: message.remove(at: place)
                case 2: message.insert(contentsOf: message[place...].prefix(5), at: place)
                default: message.removeSubrange(place...)
                }
            }
            return message
        }
    }

    @Test("random and mutated messages never trap, memory stays bounded, and the parser works on", arguments: [1, 2, 3, 4])
    func fuzz(number: UInt64) throws {
        var random = SeededGenerator(seed: runSeed &+ number)
        var limits = JSONLimits()
        limits.byteCount = 4096
        limits.tokenCount = 512
        var parser = JSONStreamParser(limits: limits)
        var results: [Result<JSONValue, JSONError>] = []
        var accepted = 0
        var refused = 0
        var held = 0
        for number in 0..<Self.inputCount {
            parser.feed(Self.input(&random), into: &results)
            held = max(held, parser.heldByteCount)
            for result in results {
                switch result {
                case .failure: refused += 1
                case .success(let value):
                    accepted += 1
                    let text = value.text()
                    // Compared as text: 2.0 is written as 2, which reads as an integer.
                    if accepted % 16 == 0, try JSONValue(parsing: text).text() != text {
                        Issue.record("seed \(runSeed): '\(text)' changes when read again")
                    }
                }
            }
            results.removeAll(keepingCapacity: true)
            if number % 4096 == 4095 {
                // 0xFF ends whatever was begun, and the next message is understood.
                parser.feed([0xff, 0x0a], into: &results)
                results.removeAll(keepingCapacity: true)
                parser.feed("{\"still\": \"here\"}".utf8, into: &results)
                #expect(results == [.success(["still": "here"])], "seed \(runSeed), input \(number)")
                results.removeAll(keepingCapacity: true)
            }
        }
        #expect(accepted > Self.inputCount / 20)
        #expect(refused > Self.inputCount / 20)
        #expect(held < 256 << 10)
    }

    /// Reads pairs of texts, tells for which of them Python's reader disagrees with ours.
    private static let judge = """
        import json, math, sys
        def refuse(word): raise ValueError(word)
        def pairs(members):
            keys = [key for key, value in members]
            if len(set(keys)) < len(keys): raise ValueError('twice')
            return dict(members)
        def number(text):
            value = float(text)
            if math.isinf(value): raise ValueError('range')
            return value
        def whole(text):
            value = int(text)
            return value if -2**63 <= value < 2**64 else number(text)
        def read(text):
            value = json.loads(text, parse_constant=refuse, object_pairs_hook=pairs, parse_float=number, parse_int=whole)
            json.dumps(value, ensure_ascii=False).encode()
            return value
        for line in sys.stdin:
            original, ours = line.split()
            try: theirs = read(bytes.fromhex(original).decode())
            except (ValueError, RecursionError): theirs = None
            mine = None if ours == '-' else [read(bytes.fromhex(ours).decode())]
            if (mine is None) != (theirs is None) or (mine is not None and mine != [theirs]): print(line.strip())
        print('done')
        """

    @Test("what is read and written again is what Python reads, and what it refuses is refused")
    func againstPython() throws {
        var random = SeededGenerator(seed: runSeed)
        var lines = ""
        for _ in 0..<5000 {
            let text = Bool.random(using: &random) ? Self.document(&random, 3) : Self.input(&random)
            // What only one of the two dialects has: single quotes. Python takes no list or null at all as a refusal here.
            if text.contains(0x27) || text.isEmpty { continue }
            let value: JSONValue?
            do throws(JSONError) { value = try JSONValue(parsing: text) } catch { value = nil }
            if value == .some(.null) || text.allSatisfy({ $0 <= 0x20 }) { continue }
            lines += Self.hex(text) + " " + (value.map { Self.hex($0.bytes(pretty: Bool.random(using: &random))) } ?? "-") + "\n"
        }
        let verdict = try run("python3", ["-c", Self.judge], input: Data(lines.utf8))
        #expect(verdict.succeeded && verdict.text == "done\n", "\(verdict), seed \(runSeed)")
    }

    private static func hex(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    /// A valid document, written in an odd way.
    private static func document(_ random: inout SeededGenerator, _ depth: Int) -> [UInt8] {
        func blank() -> [UInt8] { random.next() % 4 == 0 ? Array([" ", "\n", "\t \r"][Int(random.next() % 3)].utf8) : [] }
        func string() -> [UInt8] {
            let parts = ["a", "é", "😀", "\\n", "\\\"", "\\u00e9", "\\ud83d\\ude00", "\\/", "\u{7f}", "\\u0000", "\\\\"]
            return Array("\"".utf8) + (0..<Int(random.next() % 4)).flatMap { _ in Array(parts[Int(random.next() % 11)].utf8) } + Array("\"".utf8)
        }
        switch random.next() % (depth > 0 ? 6 : 4) {
        case 0: return string()
        case 1:
            let digits = String(random.next() >> (random.next() % 64))
            return Array(((random.next() % 2 == 0 ? "-" : "") + digits + ["", ".5", "e3", ".25E-7", "e+1"][Int(random.next() % 5)]).utf8)
        case 2: return Array(["true", "false"][Int(random.next() % 2)].utf8)
        case 3: return Array("[]".utf8)
        case 4:
            let elements = (0..<Int(random.next() % 4)).map { _ in blank() + document(&random, depth - 1) + blank() }
            return Array("[".utf8) + elements.joined(separator: Array(",".utf8)) + Array("]".utf8)
        default:
            let members = (0..<Int(random.next() % 4)).map { number in
                Array("\"k\(number)\"".utf8) + blank() + Array(":".utf8) + document(&random, depth - 1) + blank()
            }
            return Array("{".utf8) + members.joined(separator: Array(",".utf8)) + Array("}".utf8)
        }
    }
}
