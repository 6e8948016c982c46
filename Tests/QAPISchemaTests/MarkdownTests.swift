import QAPIGenerator
import QAPISchema
import StrataBase
import Testing

@Suite("Reference as Markdown")
struct MarkdownTests {
    private static let schema = """
        ##
        # = Ships
        #
        # All about @Ship.
        ##

        { 'include': 'ports.json' }

        ##
        # @Ship:
        #
        # Goes to a @Port, see (@sail-ship).
        #
        # @name: what it is called,
        #     in full
        #
        #     and in capitals
        #
        # @sails: how many
        #
        # Features:
        #
        # @unstable: @sails is a guess
        #
        # Since: 2.0
        ##
        { 'struct': 'Ship', 'data': { 'name': 'str', '*sails': { 'type': ['int'], 'features': ['unstable'], 'if': 'WIND' } }, 'if': 'SEA' }

        ##
        # @sail-ship:
        #
        # @to: where
        #
        # Features:
        #
        # @deprecated: row
        #
        # Returns: the ship
        #
        # Errors:
        #     - when there is no wind
        #
        # TODO: nobody reads this
        ##
        { 'command': 'sail-ship', 'data': { 'to': 'Port' }, 'returns': 'Ship', 'features': ['deprecated'], 'allow-oob': true }
        """
    private static let ports = """
        ##
        # @Port:
        #
        # @far: away
        #
        # Features:
        #
        # @deprecated: @far is relative
        ##
        { 'enum': 'Port', 'data': [ { 'name': 'far', 'features': ['deprecated'], 'if': { 'not': 'LAND' } }, 'near' ] }
        """

    @Test("a page has members, features, conditions, versions and links, also into other pages")
    func pages() throws {
        let schema = try SchemaReader.schema(root: "ships.json") { Array(($0 == "ships.json" ? Self.schema : Self.ports).utf8) }
        let files = MarkdownEmitter.files(for: schema, titled: "Harbour")
        #expect(files.map(\.name) == ["ships.md", "ports.md", "README.md"])
        #expect(
            files[0].text == """
                # ships

                **Ships**

                All about [`Ship`](#ship).

                ## Ship

                *struct*; if `SEA`

                Goes to a [`Port`](ports.md#port), see ([`sail-ship`](#sail-ship)).

                - `name` (`str`): what it is called, in full

                  and in capitals
                - `sails` (array of `int`, optional, `unstable`, if `WIND`): how many

                Feature `unstable`: `sails` is a guess

                Since: 2.0

                ## sail-ship

                *command*; `deprecated`

                - `to` ([`Port`](ports.md#port)): where

                Returns [`Ship`](#ship): the ship

                It may be executed out of band.

                Feature `deprecated`: row

                Errors: - when there is no wind

                """)
        #expect(
            files[1].text == """
                # ports

                ## Port

                *enum*

                - `far` (`deprecated`, if `not(LAND)`): away
                - `near`

                Feature `deprecated`: `far` is relative

                """)
        #expect(files[2].text.contains("- [`sail-ship`](ships.md#sail-ship)"))
    }
}
