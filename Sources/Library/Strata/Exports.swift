// An embedder imports one module. What it names besides the types here comes from three modules of ours whose public face is small:
// `BlockError`; the option and answer types of the storage schema (`BlockdevOptions`, `BlockDeviceInfo`, …); and `JSONValue`.
@_exported public import QAPIRuntime
@_exported public import StorageSchema
@_exported public import StrataBase
