import StrataBase
import Testing

@Suite("patterns")
struct GlobPatternTests {
    @Test("patterns match as a naive matcher does", arguments: 0..<20)
    func patterns(seed: UInt64) {
        func naive(_ pattern: Substring, _ name: Substring) -> Bool {
            guard let first = pattern.first else { return name.isEmpty }
            if first == "*" { return naive(pattern.dropFirst(), name) || (!name.isEmpty && naive(pattern, name.dropFirst())) }
            guard let letter = name.first else { return false }
            return (first == "?" || first == letter) && naive(pattern.dropFirst(), name.dropFirst())
        }
        var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
        func pick(_ text: String, upTo count: Int) -> String {
            func next() -> Int {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return Int(state >> 33)
            }
            return String((0..<next() % (count + 1)).map { _ in Array(text)[next() % text.count] })
        }
        for _ in 0..<500 {
            let (pattern, name) = (pick("ab*?", upTo: 8), pick("ab", upTo: 10))
            #expect(GlobPattern(pattern).matches(name) == naive(pattern[...], name[...]), "'\(pattern)' on '\(name)'")
        }
    }
}
