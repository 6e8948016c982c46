/// What `--version` says.
package enum VersionText {
    /// Our own version.
    package static let version = "0.1.0"
    /// The release of QEMU whose tools, formats and QMP schema this version follows.
    package static let compatibleWith = "10.0.2"

    /// - Parameter name: what messages call the tool.
    /// The first line has the shape that scripts take apart to learn QEMU's version.
    package static func text(name: String) -> String {
        "\(name) version \(compatibleWith) (Strata \(version))\n"
    }
}
