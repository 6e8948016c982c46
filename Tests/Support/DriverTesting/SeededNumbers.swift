@_exported public import StrataTesting

/// The tests' one generator, for those who know it from here.
package typealias SeededNumbers = SeededGenerator
