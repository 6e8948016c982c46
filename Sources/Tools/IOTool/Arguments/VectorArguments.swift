/// The operands of commands with several buffers: an offset and the buffers' lengths.
enum VectorArguments {
    /// - Throws: `.usage` when a length is missing, `.said` for what is no number or too much.
    static func parse(_ operands: [String]) throws(CommandFailure) -> (offset: Int, lengths: [Int]) {
        guard operands.count >= 2 else { throw .usage(nil) }
        let offset = try ArgumentValues.bytes(operands[0])
        var lengths: [Int] = []
        var total = 0
        for text in operands.dropFirst() {
            let length = try ArgumentValues.bytes(text)
            guard length <= ArgumentValues.longestRequest else {
                throw .said("Argument '\(text)' exceeds maximum size \(ArgumentValues.longestRequest)")
            }
            guard total <= ArgumentValues.longestRequest - length else {
                throw .said("The total number of bytes exceed the maximum size \(ArgumentValues.longestRequest)")
            }
            total += length
            lengths.append(length)
        }
        return (offset, lengths)
    }
}
