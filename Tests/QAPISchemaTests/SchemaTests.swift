import QAPIGenerator
import QAPISchema
import Testing

/// A schema in memory: `main.json` and whatever else is given.
private func schema(_ main: String, _ others: [String: String] = [:]) throws(SchemaError) -> Schema {
    struct Missing: Error, CustomStringConvertible { var description: String { "no such file" } }
    return try SchemaReader.schema(root: "main.json") { path in
        guard let text = path == "main.json" ? main : others[path] else { throw Missing() }
        return Array(text.utf8)
    }
}

/// One rule: a schema and what the model of it says.
struct ValidCase: Sendable, CustomTestStringConvertible {
    let rule: String
    let text: String
    let dump: String
    var testDescription: String { rule }

    init(_ rule: String, _ text: String, _ dump: String) {
        self.rule = rule
        self.text = text
        self.dump = dump
    }
}

/// One rule: a schema that breaks it and what is said about it.
struct InvalidCase: Sendable, CustomTestStringConvertible {
    let rule: String
    let text: String
    let error: String
    var testDescription: String { rule }

    init(_ rule: String, _ text: String, _ error: String) {
        self.rule = rule
        self.text = text
        self.error = error
    }
}

private let validCases: [ValidCase] = [
    ValidCase("an empty schema", "", ""),
    ValidCase("comments and blank lines", "# nothing\n\n  # more\n", ""),
    ValidCase("enum", "{ 'enum': 'Color', 'data': [ 'red', 'dark-red', '2d' ] }", "enum Color\n    red\n    dark-red\n    2d\n"),
    ValidCase("enum with prefix and no values", "{ 'enum': 'Nothing', 'prefix': 'NO', 'data': [] }", "enum Nothing\n    prefix NO\n"),
    ValidCase(
        "enum values with conditions and features",
        "{ 'enum': 'Color', 'data': [ { 'name': 'red', 'if': 'RED', 'features': [ 'deprecated' ] } ] }",
        "enum Color\n    red if RED +deprecated\n"),
    ValidCase(
        "struct with optional members, arrays and long members",
        "{ 'struct': 'Point', 'data': { 'x': 'int', '*tags': ['str'], 'z': { 'type': 'number', 'if': { 'not': 'FLAT' }, 'features': [ 'unstable' ] } } }",
        "struct Point\n    x: int\n    tags?: [str]\n    z: number if not(FLAT) +unstable\n"),
    ValidCase(
        "struct with base",
        "{ 'struct': 'Base', 'data': { 'a': 'int' } }\n{ 'struct': 'Derived', 'base': 'Base', 'data': { 'b': 'Derived' } }",
        "struct Base\n    a: int\nstruct Derived\n    base Base\n    b: Derived\n"),
    ValidCase(
        "union with inline base and an empty branch",
        "{ 'enum': 'Kind', 'data': [ 'one', 'two' ] } { 'struct': 'One', 'data': { 'x': 'int' } }\n{ 'union': 'Thing', 'base': { 'kind': 'Kind', '*name': 'str' }, 'discriminator': 'kind', 'data': { 'one': 'One' } }",
        "enum Kind\n    one\n    two\nstruct One\n    x: int\nunion Thing\n    kind: Kind\n    name?: str\n    discriminator kind\n    case one: One\n"
    ),
    ValidCase(
        "union with named base and a conditional branch",
        "{ 'enum': 'Kind', 'data': [ 'one' ] } { 'struct': 'Base', 'data': { 'kind': 'Kind' } } { 'struct': 'One', 'data': {} } { 'union': 'Thing', 'base': 'Base', 'discriminator': 'kind', 'data': { 'one': { 'type': 'One', 'if': { 'all': [ 'A', { 'any': [ 'B', 'C' ] } ] } } } }",
        "enum Kind\n    one\nstruct Base\n    kind: Kind\nstruct One\nunion Thing\n    base Base\n    discriminator kind\n    case one: One if all(A, any(B, C))\n"
    ),
    ValidCase(
        "alternate",
        "{ 'struct': 'One', 'data': {} } { 'alternate': 'Any', 'data': { 'one': 'One', 'name': 'str', 'none': 'null', 'list': ['str'] } }",
        "struct One\nalternate Any\n    case one: One\n    case name: str\n    case none: null\n    case list: [str]\n"),
    ValidCase(
        "alternate of an enum and a number that cannot be confused",
        "{ 'enum': 'Mode', 'data': [ 'fast' ] } { 'alternate': 'Speed', 'data': { 'mode': 'Mode', 'rate': 'int', 'flag': 'bool' } }",
        "enum Mode\n    fast\nalternate Speed\n    case mode: Mode\n    case rate: int\n    case flag: bool\n"),
    ValidCase(
        "commands",
        "{ 'struct': 'Arg', 'data': {} } { 'command': 'do-it', 'data': 'Arg', 'boxed': true, 'returns': ['Arg'], 'allow-oob': true, 'allow-preconfig': true }\n{ 'command': 'raw', 'gen': false, 'success-response': false, 'coroutine': true, 'data': { 'x': 'any' } }",
        "struct Arg\ncommand do-it\n    data Arg\n    returns [Arg]\n    flags boxed oob preconfig\ncommand raw\n    x: any\n    flags untyped no-success-response coroutine\n"
    ),
    ValidCase(
        "events", "{ 'event': 'HAPPENED', 'data': { 'when': 'int64' }, 'if': 'EVENTS' } { 'event': 'QUIET' }",
        "event HAPPENED if EVENTS\n    when: int64\nevent QUIET\n"),
    ValidCase(
        "pragmas lift rules",
        "{ 'pragma': { 'command-name-exceptions': ['do_it'], 'command-returns-exceptions': ['do_it'], 'member-name-exceptions': ['Odd'] } } { 'command': 'do_it', 'returns': 'str' } { 'struct': 'Odd', 'data': { 'Big_Name': 'int' } }",
        "command do_it\n    returns str\nstruct Odd\n    Big_Name: int\n"),
    ValidCase(
        "downstream and experimental names",
        "{ 'struct': '__com.example_Thing', 'data': { '__com.example_speed': 'int', 'x-fast': 'bool' } }",
        "struct __com.example_Thing\n    __com.example_speed: int\n    x-fast: bool\n"),
    ValidCase(
        "features of definitions",
        "##\n# @Old:\n#\n# Features:\n#\n# @deprecated: use another\n##\n{ 'struct': 'Old', 'data': {}, 'features': [ 'deprecated', { 'name': 'more', 'if': 'MORE' } ] }",
        "struct Old +deprecated +more if MORE\n"),
    ValidCase(
        "documentation in all its parts",
        "##\n# = A heading\n##\n\n##\n# @go:\n#\n# Goes.\n#\n# @x: how far,\n#     in metres\n#\n# Features:\n#\n# @unstable: @x may change\n#\n# Returns: nothing much\n#\n# Errors: when it cannot\n#\n# TODO: more\n#\n# Since: 1.0\n##\n{ 'command': 'go', 'data': { 'x': { 'type': 'int', 'features': [ 'unstable' ] } } }",
        "command go\n    x: int +unstable\n"),
]

private let invalidCases: [InvalidCase] = [
    // Lexis
    InvalidCase("double quotes", "{ \"enum\": 'A' }", "main.json:1: stray '\"'"),
    InvalidCase("numbers", "{ 'struct': 'A', 'data': 3 }", "main.json:1: stray '3'"),
    InvalidCase("an open string", "{ 'struct\n': 'A' }", "main.json:1: missing terminating \"'\""),
    InvalidCase("a tab", "{\t}", "main.json:1: tab in place of spaces"),
    InvalidCase("letters beyond ASCII", "{ 'stüct': 'A' }", "main.json:1: funny character in string"),
    InvalidCase("an unknown escape", "{ 'a\\n': 'A' }", "main.json:1: unknown escape in string"),
    // Syntax
    InvalidCase("something other than an object", "[ 'a' ]", "main.json:1: expected '{', got '['"),
    InvalidCase("a missing comma", "{ 'struct': 'A'\n 'data': {} }", "main.json:2: expected ',' or '}', got string 'data'"),
    InvalidCase("a comma too many", "{ 'struct': 'A', }", "main.json:1: expected string, got '}'"),
    InvalidCase("a missing colon", "{ 'struct' 'A' }", "main.json:1: expected ':', got string 'A'"),
    InvalidCase("the end too early", "{ 'struct': [ 'a'\n", "main.json:2: expected ',' or ']', got end of file"),
    InvalidCase("a key twice", "{ 'struct': 'A', 'data': {},\n'data': {} }", "main.json:2: duplicate key 'data'"),
    // Directives
    InvalidCase(
        "include of a file that is not there", "\n{ 'include': 'gone.json' }",
        "main.json:2: can't read schema file 'gone.json': no such file"),
    InvalidCase("include of something else", "{ 'include': true }", "main.json:1: value of 'include' must be a string"),
    InvalidCase("an unknown pragma", "{ 'pragma': { 'faster': true } }", "main.json:1: unknown pragma 'faster'"),
    InvalidCase("a pragma of the wrong type", "{ 'pragma': { 'doc-required': [] } }", "main.json:1: pragma 'doc-required' must be boolean"),
    InvalidCase(
        "a pragma's list of the wrong type", "{ 'pragma': { 'member-name-exceptions': 'A' } }",
        "main.json:1: pragma 'member-name-exceptions' must be a list of strings"),
    // Expressions
    InvalidCase(
        "no keyword", "{ 'data': {} }",
        "main.json:1: expression is missing one of 'enum', 'struct', 'union', 'alternate', 'command', 'event'"),
    InvalidCase("a name that is no string", "{ 'struct': {} }", "main.json:1: 'struct' key must have a string value"),
    InvalidCase(
        "an unknown key", "{ 'struct': 'Aa', 'data': {},\n 'color': 'red' }", "main.json:2: in struct 'Aa': has unknown key 'color'"),
    InvalidCase("a missing key", "{ 'struct': 'Aa' }", "main.json:1: in struct 'Aa': misses key 'data'"),
    InvalidCase(
        "a definition twice", "{ 'struct': 'Aa', 'data': {} }\n{ 'enum': 'Aa', 'data': [] }",
        "main.json:2: enum 'Aa' is already defined as struct at main.json:1"),
    InvalidCase(
        "a definition of a built-in", "{ 'enum': 'QType', 'data': [] }", "main.json:1: in enum 'QType': built-in 'QType' is already defined"
    ),
    // Names
    InvalidCase(
        "a type in small letters", "{ 'struct': 'point', 'data': {} }",
        "main.json:1: in struct 'point': name of struct 'point' must use CamelCase"),
    InvalidCase(
        "a type named List", "{ 'struct': 'PointList', 'data': {} }",
        "main.json:1: in struct 'PointList': struct name 'PointList' should not end in 'List'"),
    InvalidCase(
        "a command in capitals", "{ 'command': 'Go' }", "main.json:1: in command 'Go': name of command 'Go' must not use uppercase or '_'"),
    InvalidCase(
        "an event in small letters", "{ 'event': 'go' }", "main.json:1: in event 'go': name of event 'go' must not use lowercase or '-'"),
    InvalidCase(
        "a member with a blank", "{ 'struct': 'Aa', 'data': { 'a b': 'int' } }",
        "main.json:1: in struct 'Aa': 'data' member has an invalid name 'a b'"),
    InvalidCase(
        "a member that begins with a digit", "{ 'struct': 'Aa', 'data': { '2d': 'int' } }",
        "main.json:1: in struct 'Aa': 'data' member has an invalid name '2d'"),
    InvalidCase(
        "a member in capitals", "{ 'struct': 'Aa', 'data': { 'Size': 'int' } }",
        "main.json:1: in struct 'Aa': name of 'data' member 'Size' must not use uppercase or '_'"),
    InvalidCase(
        "a reserved prefix", "{ 'struct': 'Aa', 'data': { 'q_x': 'int' } }",
        "main.json:1: in struct 'Aa': 'data' member has the reserved name 'q_x'"),
    InvalidCase(
        "a reserved member", "{ 'struct': 'Aa', 'data': { 'has-x': 'int' } }",
        "main.json:1: in struct 'Aa': 'data' member uses the reserved name 'has-x'"),
    InvalidCase(
        "members that are one name in C",
        "{ 'pragma': { 'member-name-exceptions': ['Aa'] } } { 'struct': 'Aa', 'data': { 'a-b': 'int',\n'a_b': 'int' } }",
        "main.json:2: in struct 'Aa': 'data' member 'a_b' collides with 'data' member 'a-b'"),
    // Types
    InvalidCase(
        "an unknown type", "{ 'struct': 'Aa', 'data': { 'x': 'Gone' } }", "main.json:1: in struct 'Aa': member 'x' uses unknown type 'Gone'"
    ),
    InvalidCase(
        "a command as a type", "{ 'command': 'go' } { 'struct': 'Aa', 'data': { 'x': 'go' } }",
        "main.json:1: in struct 'Aa': member 'x' uses unknown type 'go'"),
    InvalidCase(
        "an array of two types", "{ 'struct': 'Aa', 'data': { 'x': ['int', 'str'] } }",
        "main.json:1: in struct 'Aa': 'data' member 'x': array type must contain single type name"),
    InvalidCase(
        "a type that is no name", "{ 'struct': 'Aa', 'data': { 'x': true } }",
        "main.json:1: in struct 'Aa': 'data' member 'x' should be a type name or an array of one"),
    InvalidCase(
        "a long member without a type", "{ 'struct': 'Aa', 'data': { 'x': { 'if': 'A' } } }",
        "main.json:1: in struct 'Aa': 'data' member 'x' misses key 'type'"),
    InvalidCase(
        "a base that is an enum", "{ 'enum': 'Kk', 'data': [] } { 'struct': 'Aa', 'base': 'Kk', 'data': {} }",
        "main.json:1: in struct 'Aa': 'base' cannot use enum type 'Kk'"),
    InvalidCase(
        "a base that contains itself", "{ 'struct': 'Aa', 'base': 'Bb', 'data': {} } { 'struct': 'Bb', 'base': 'Aa', 'data': {} }",
        "main.json:1: in struct 'Aa': object Aa contains itself"),
    InvalidCase(
        "a member of the base again",
        "{ 'struct': 'Bb', 'data': { 'x': 'int' } } { 'struct': 'Aa', 'base': 'Bb',\n'data': { 'x': 'int' } }",
        "main.json:2: in struct 'Aa': member 'x' collides with member 'x' of the base type"),
    InvalidCase(
        "an enum value twice", "{ 'enum': 'Kk', 'data': [ 'a', 'a' ] }", "main.json:1: in enum 'Kk': value 'a' collides with value 'a'"),
    InvalidCase("an enum of an object", "{ 'enum': 'Kk', 'data': {} }", "main.json:1: in enum 'Kk': 'data' must be an array"),
    // Unions
    InvalidCase(
        "a union without discriminator", "{ 'union': 'Uu', 'base': {}, 'data': {} }",
        "main.json:1: in union 'Uu': misses key 'discriminator'"),
    InvalidCase(
        "a discriminator that is not there", "{ 'union': 'Uu', 'base': { 'x': 'int' }, 'discriminator': 'y', 'data': {} }",
        "main.json:1: in union 'Uu': discriminator 'y' is not a member of 'base'"),
    InvalidCase(
        "a discriminator that is no enum", "{ 'union': 'Uu', 'base': { 'x': 'int' }, 'discriminator': 'x', 'data': {} }",
        "main.json:1: in union 'Uu': discriminator member 'x' must be of enum type"),
    InvalidCase(
        "an optional discriminator",
        "{ 'enum': 'Kk', 'data': [] } { 'union': 'Uu', 'base': { '*x': 'Kk' }, 'discriminator': 'x', 'data': {} }",
        "main.json:1: in union 'Uu': discriminator member 'x' must not be optional"),
    InvalidCase(
        "a branch that is no value",
        "{ 'enum': 'Kk', 'data': [ 'a' ] } { 'struct': 'Aa', 'data': {} } { 'union': 'Uu', 'base': { 'x': 'Kk' }, 'discriminator': 'x', 'data': { 'b': 'Aa' } }",
        "main.json:1: in union 'Uu': branch 'b' is not a value of enum type 'Kk'"),
    InvalidCase(
        "a branch that is no object",
        "{ 'enum': 'Kk', 'data': [ 'a' ] } { 'union': 'Uu', 'base': { 'x': 'Kk' }, 'discriminator': 'x', 'data': { 'a': 'int' } }",
        "main.json:1: in union 'Uu': branch 'a' cannot use non-object type 'int'"),
    InvalidCase(
        "a branch with a member of the base",
        "{ 'enum': 'Kk', 'data': [ 'a' ] } { 'struct': 'Aa', 'data': { 'x': 'int' } } { 'union': 'Uu', 'base': { 'x': 'Kk' }, 'discriminator': 'x', 'data': { 'a': 'Aa' } }",
        "main.json:1: in union 'Uu': member 'x' of type 'Aa' collides with base member 'x'"),
    // Alternates
    InvalidCase("an alternate of nothing", "{ 'alternate': 'Aa', 'data': {} }", "main.json:1: in alternate 'Aa': 'data' must not be empty"),
    InvalidCase(
        "two numbers", "{ 'alternate': 'Aa', 'data': { 'a': 'int', 'b': 'number' } }",
        "main.json:1: in alternate 'Aa': branch 'b' can't be distinguished from 'a'"),
    InvalidCase(
        "text and a boolean", "{ 'alternate': 'Aa', 'data': { 'a': 'str', 'b': 'bool' } }",
        "main.json:1: in alternate 'Aa': branch 'b' can't be distinguished from 'a'"),
    InvalidCase(
        "a value `on` and a boolean", "{ 'enum': 'Kk', 'data': [ 'on' ] } { 'alternate': 'Aa', 'data': { 'a': 'Kk', 'b': 'bool' } }",
        "main.json:1: in alternate 'Aa': branch 'b' can't be distinguished from 'a'"),
    InvalidCase(
        "a value that looks like a number", "{ 'enum': 'Kk', 'data': [ '1st' ] } { 'alternate': 'Aa', 'data': { 'a': 'Kk', 'b': 'int' } }",
        "main.json:1: in alternate 'Aa': branch 'b' can't be distinguished from 'a'"),
    InvalidCase("any", "{ 'alternate': 'Aa', 'data': { 'a': 'any' } }", "main.json:1: in alternate 'Aa': branch 'a' cannot use type 'any'"),
    // Commands and events
    InvalidCase("boxed without data", "{ 'command': 'go', 'boxed': true }", "main.json:1: in command 'go': 'boxed': true requires 'data'"),
    InvalidCase(
        "boxed with members", "{ 'command': 'go', 'boxed': true, 'data': {} }",
        "main.json:1: in command 'go': 'data' should be a type name when 'boxed' is true"),
    InvalidCase(
        "a flag that says its default", "{ 'command': 'go', 'gen': true }",
        "main.json:1: in command 'go': flag 'gen' may only use false value"),
    InvalidCase(
        "flags that exclude each other", "{ 'command': 'go', 'allow-oob': true, 'coroutine': true }",
        "main.json:1: in command 'go': flags 'allow-oob' and 'coroutine' are incompatible"),
    InvalidCase(
        "a union as arguments",
        "{ 'enum': 'Kk', 'data': [] } { 'union': 'Uu', 'base': { 'x': 'Kk' }, 'discriminator': 'x', 'data': {} } { 'command': 'go', 'data': 'Uu' }",
        "main.json:1: in command 'go': 'data' can take union type 'Uu' only with 'boxed': true"),
    InvalidCase(
        "an enum as arguments", "{ 'enum': 'Kk', 'data': [] } { 'event': 'GO', 'data': 'Kk' }",
        "main.json:1: in event 'GO': 'data' cannot take enum type 'Kk'"),
    InvalidCase(
        "a scalar as result", "{ 'command': 'go', 'returns': 'str' }",
        "main.json:1: in command 'go': 'returns' cannot take type 'str': it must be an object or an array of objects"),
    // Conditions and features
    InvalidCase(
        "a condition that is no name", "{ 'struct': 'Aa', 'data': {}, 'if': 'A B' }",
        "main.json:1: in struct 'Aa': 'if' condition 'A B' of 'struct' is not a valid identifier"),
    InvalidCase(
        "a condition of nothing", "{ 'struct': 'Aa', 'data': {}, 'if': { 'all': [] } }",
        "main.json:1: in struct 'Aa': 'all' condition of 'struct' must be a non-empty array"),
    InvalidCase(
        "an unknown operator", "{ 'struct': 'Aa', 'data': {}, 'if': { 'xor': [ 'A' ] } }",
        "main.json:1: in struct 'Aa': 'if' condition of 'struct' has unknown key 'xor'"),
    InvalidCase(
        "two operators", "{ 'struct': 'Aa', 'data': {}, 'if': { 'any': [ 'A' ], 'not': 'B' } }",
        "main.json:1: in struct 'Aa': 'if' condition of 'struct' must have one key of 'all', 'any' and 'not'"),
    InvalidCase(
        "a feature twice", "{ 'struct': 'Aa', 'data': {}, 'features': [ 'a', 'a' ] }",
        "main.json:1: in struct 'Aa': 'features' member 'a' appears twice"),
    InvalidCase(
        "features that are no list", "{ 'struct': 'Aa', 'data': {}, 'features': 'a' }",
        "main.json:1: in struct 'Aa': 'features' must be an array"),
    // Documentation
    InvalidCase(
        "documentation that does not end", "##\n# @Aa:\n{ 'struct': 'Aa', 'data': {} }",
        "main.json:1: documentation comment must end with '##'"),
    InvalidCase(
        "documentation of another definition", "##\n# @Bb:\n##\n{ 'struct': 'Aa', 'data': {} }",
        "main.json:1: documentation comment is for 'Bb', the definition for 'Aa'"),
    InvalidCase("documentation of nothing", "##\n# @Bb:\n##\n", "main.json:1: documentation for 'Bb' is not followed by the definition"),
    InvalidCase(
        "documentation that is missing", "{ 'pragma': { 'doc-required': true } }\n{ 'struct': 'Aa', 'data': {} }",
        "main.json:2: in struct 'Aa': documentation comment required"),
    InvalidCase(
        "a member without documentation",
        "{ 'pragma': { 'doc-required': true } }\n##\n# @Aa:\n##\n{ 'struct': 'Aa', 'data': { 'x': 'int' } }",
        "main.json:2: in struct 'Aa': member 'x' is not documented"),
    InvalidCase(
        "a documented member that is not there", "##\n# @Aa:\n#\n# @x: gone\n##\n{ 'struct': 'Aa', 'data': {} }",
        "main.json:4: in struct 'Aa': documented member 'x' does not exist"),
    InvalidCase(
        "a documented feature that is not there", "##\n# @Aa:\n#\n# Features:\n#\n# @x: gone\n##\n{ 'struct': 'Aa', 'data': {} }",
        "main.json:6: in struct 'Aa': documented feature 'x' does not exist"),
    InvalidCase(
        "a member documented twice", "##\n# @Aa:\n#\n# @x: a\n#\n# @x: b\n##\n{ 'struct': 'Aa', 'data': { 'x': 'int' } }",
        "main.json:6: 'x' is documented twice"),
    InvalidCase(
        "Returns of a struct", "##\n# @Aa:\n#\n# Returns: no\n##\n{ 'struct': 'Aa', 'data': {} }",
        "main.json:4: in struct 'Aa': 'Returns' section is only valid for commands"),
    InvalidCase(
        "a retired section", "##\n# @Aa:\n#\n# Note: no\n##\n{ 'struct': 'Aa', 'data': {} }",
        "main.json:4: 'Note:' is not a section; write it as reST directive"),
    InvalidCase("no blank after the sign", "##\n#@Aa:\n##\n", "main.json:2: missing space after '#' in documentation comment"),
]

@Suite("Schema language")
struct SchemaTests {
    @Test("a valid schema has this model", arguments: validCases)
    func valid(example: ValidCase) throws {
        #expect(try schema(example.text).dump == "module main.json\n" + example.dump)
    }

    @Test("an invalid schema is refused in one line", arguments: invalidCases)
    func invalid(example: InvalidCase) {
        let error = #expect(throws: SchemaError.self) { try schema(example.text) }
        #expect(error?.description == example.error)
    }

    @Test("files are included once, cycles are no harm, paths are relative")
    func includes() throws {
        let result = try schema(
            "{ 'include': 'sub/a.json' } { 'struct': 'Main', 'data': { 'a': 'Aa' } }",
            [
                "sub/a.json": "{ 'include': './b.json' } { 'struct': 'Aa', 'data': {} }",
                "sub/b.json": "{ 'include': '../main.json' } { 'include': 'a.json' }",
            ])
        #expect(result.modules.map(\.file) == ["main.json", "sub/a.json", "sub/b.json"])
        #expect(result.dump == "module main.json\nstruct Main\n    a: Aa\nmodule a.json\nstruct Aa\nmodule b.json\n")
    }

    @Test("an error in an included file tells how it was reached")
    func errorInInclude() {
        let error = #expect(throws: SchemaError.self) {
            try schema("\n{ 'include': 'a.json' }", ["a.json": "{ 'include': 'b.json' }", "b.json": "\n\n{ 'enum': 'Aa' }"])
        }
        #expect(error?.description == "b.json:3: in enum 'Aa': misses key 'data' (included from a.json:1, from main.json:2)")
    }

    @Test("what a condition excludes is gone")
    func defines() throws {
        let all = try schema(
            "{ 'enum': 'Kk', 'data': [ 'a', { 'name': 'b', 'if': 'B' } ] } { 'struct': 'Aa', 'data': { 'x': { 'type': 'int', 'if': { 'not': 'B' } } } } { 'event': 'GO', 'if': { 'all': [ 'B', 'C' ] } }"
        )
        #expect(all.applying(defines: []).dump == "module main.json\nenum Kk\n    a\nstruct Aa\n    x: int if not(B)\n")
        #expect(
            all.applying(defines: ["B", "C"]).dump == "module main.json\nenum Kk\n    a\n    b if B\nstruct Aa\nevent GO if all(B, C)\n")
    }

    @Test("a feature whose condition does not hold is gone, wherever it stands")
    func conditionalFeatures() throws {
        let conditional = "{ 'name': 'slow', 'if': 'SLOW' }"
        let all = try schema(
            "{ 'struct': 'Aa', 'data': { 'x': { 'type': 'int', 'features': [ \(conditional) ] } }, 'features': [ \(conditional) ] }"
                + "{ 'enum': 'Kk', 'data': [ { 'name': 'a', 'features': [ \(conditional), 'old' ] } ] }")
        #expect(all.applying(defines: []).dump == "module main.json\nstruct Aa\n    x: int\nenum Kk\n    a +old\n")
        #expect(all.applying(defines: ["SLOW"]).dump == all.dump)
    }

    @Test("random edits of a schema never trap", arguments: [1, 2])
    func fuzz(seed: UInt64) {
        var state = seed
        func next(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % limit
        }
        let alphabet = Array("{}[]:,'\\# \n@*abTrue".utf8) + [0, 9, 0xff]
        for _ in 0..<3000 {
            var text = Array(validCases[next(validCases.count)].text.utf8)
            if text.isEmpty { continue }
            for _ in 0..<1 + next(3) { text[next(text.count)] = alphabet[next(alphabet.count)] }
            do {
                let result = try SchemaReader.schema(root: "main.json") { _ in text }
                _ = SwiftGenerator.files(for: result, named: "Test")
            } catch {}
        }
    }
}
