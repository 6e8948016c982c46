import BlockGraph
import StorageSchema
import StrataBase

/// The sizes and alignments that a blkdebug node pretends to have.
struct BlkdebugLimits {
    /// Bytes; 0 where an option is absent, as in QEMU.
    let align, maxTransfer, optimalZero, maxZero, optimalDiscard, maxDiscard: Int

    /// - Throws: `Cannot meet constraints with OPTION VALUE`.
    init(_ options: BlockdevOptionsBlkdebug) throws(BlockError) {
        let limit = Int(Int32.max)
        align = try Self.value(options.align, "align")
        guard align == 0 || (align < limit && align.isPowerOfTwo) else { throw Self.refusal("align", align) }
        let unit = max(align, 1)
        maxTransfer = try Self.value(options.maxTransfer.map(Int.init), "max-transfer", multipleOf: unit)
        optimalZero = try Self.value(options.optWriteZero.map(Int.init), "opt-write-zero", multipleOf: unit)
        maxZero = try Self.value(options.maxWriteZero.map(Int.init), "max-write-zero", multipleOf: max(unit, optimalZero))
        optimalDiscard = try Self.value(options.optDiscard.map(Int.init), "opt-discard", multipleOf: unit)
        maxDiscard = try Self.value(options.maxDiscard.map(Int.init), "max-discard", multipleOf: max(unit, optimalDiscard))
    }

    private static func refusal(_ name: String, _ value: Int) -> BlockError {
        BlockError(.invalidArgument, "Cannot meet constraints with \(name) \(value)")
    }

    private static func value(_ given: Int?, _ name: String) throws(BlockError) -> Int {
        guard let given else { return 0 }
        guard given >= 0 else { throw BlockError(.invalidArgument, "Value '\(given)' is out of range for parameter '\(name)'") }
        return given
    }

    private static func value(_ given: Int?, _ name: String, multipleOf unit: Int) throws(BlockError) -> Int {
        let value = try value(given, name)
        guard value < Int(Int32.max), value % unit == 0 else { throw refusal(name, value) }
        return value
    }

    var blockLimits: BlockLimits {
        BlockLimits(
            requestAlignment: max(align, 1), maxTransfer: maxTransfer == 0 ? .max : maxTransfer, zeroAlignment: zeroUnit, discardAlignment: discardUnit,
            maxZero: maxZero == 0 ? .max : maxZero, maxDiscard: maxDiscard == 0 ? .max : maxDiscard)
    }

    /// What zeroes, and discards, shorter than this leave to another way.
    var zeroUnit: Int { max(align, optimalZero, 1) }
    var discardUnit: Int { max(align, optimalDiscard, 1) }
}
