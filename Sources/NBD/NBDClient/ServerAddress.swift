import IOCore
import SocketAddresses
import StorageSchema
import StrataBase

/// Where a server is, or a socket that leads to it already.
enum ServerAddress: Sendable {
    case host(HostAddress, tcp: TCPSettings = TCPSettings())
    /// A connected socket that was handed over. It serves one connection; there is no second one to be made from it.
    case descriptor(Int32)

    init(_ address: SocketAddress) throws(BlockError) {
        if case .fd(let given) = address.branch {
            self = .descriptor(try given.number)
        } else {
            self = .host(try HostAddress(address), tcp: try TCPSettings(address))
        }
    }

    /// The name by which a certificate would know the server.
    var hostName: String? {
        if case .host(.tcp(let host, _), _) = self { return host }
        return nil
    }

    /// Blocks.
    func connect() throws(BlockError) -> ConnectedSocket {
        switch self {
        case .host(let address, let tcp):
            return try ConnectedSocket(connectingTo: address, tcp: tcp)
        case .descriptor(let number):
            return try ConnectedSocket(copying: number)
        }
    }
}

extension ServerAddress: CustomStringConvertible {
    var description: String {
        switch self {
        case .host(.unix(let path), _): "'\(path)'"
        case .host(let address, _): "'\(address)'"
        case .descriptor(let number): "on file descriptor \(number)"
        }
    }

    /// The URI by which users name an export of this server, or nil when it has none.
    func uri(export: String) -> String? {
        switch self {
        case .host(.unix(let path), _): "nbd+unix:///\(export.uriEscaped)?socket=\(path.uriEscaped)"
        case .host(.tcp(let host, let port), _):
            "nbd://\(host.utf8.contains(UInt8(ascii: ":")) ? "[\(host)]" : host)\(port == "10809" ? "" : ":\(port)")\(export.isEmpty ? "" : "/\(export.uriEscaped)")"
        case .descriptor, .host(.abstract, _), .host(.descriptor, _): nil
        }
    }
}

extension String {
    /// With everything escaped that a URI's path or query may not hold as it is.
    fileprivate var uriEscaped: String {
        var result = ""
        for byte in utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"), UInt8(ascii: "/"), UInt8(ascii: ":"):
                result.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                let digits = String(byte, radix: 16, uppercase: true)
                result += digits.utf8.count == 1 ? "%0\(digits)" : "%\(digits)"
            }
        }
        return result
    }
}
