/// Scripts that teach a shell to complete our command lines.
package enum ShellCompletion: String, CaseIterable, Sendable {
    case bash, zsh, fish

    package func script(_ manuals: [ToolManual]) -> String {
        switch self {
        case .bash: Self.bash(manuals)
        case .zsh: Self.zsh(manuals)
        case .fish: Self.fish(manuals)
        }
    }

    /// Every place in a command line where options are read: the words that lead there, and what may follow.
    private static func places(_ manuals: [ToolManual]) -> [(path: String, options: [ToolManual.Option], words: [(word: String, summary: String)])] {
        var places: [(path: String, options: [ToolManual.Option], words: [(word: String, summary: String)])] = []
        for manual in manuals {
            let tool = manual.tool.rawValue
            places.append((tool, manual.command.options, manual.subcommands.map { ($0.name, $0.summary) }))
            for command in manual.subcommands { places.append(("\(tool)/\(command.name)", command.options, [])) }
        }
        return places
    }

    private static func names(_ options: [ToolManual.Option]) -> [String] {
        options.flatMap { [$0.short.map { "-\($0)" }, $0.long.map { "--\($0)" }].compactMap(\.self) }
    }

    // MARK: bash

    private static func bash(_ manuals: [ToolManual]) -> String {
        var cases = ""
        for place in places(manuals) {
            let valued = names(place.options.filter { $0.value != nil })
            cases += """
                        \(place.path))
                            words="\(place.words.map(\.word).joined(separator: " "))"
                            options="\(names(place.options).joined(separator: " "))"
                            valued="\(valued.joined(separator: " "))"
                            ;;

                """
        }
        return """
            # Completion of strata's command lines for bash: source <(strata completion bash)

            _strata() {
                local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} place= words options valued index=1
                COMPREPLY=()
                # A link to the program is the tool that it is named after.
                case ${COMP_WORDS[0]##*/} in
                    strata-*) place=${COMP_WORDS[0]##*/strata-}; place=${place#strata-} ;;
                    *) if ((COMP_CWORD > 1)); then place=${COMP_WORDS[1]}; index=2; fi ;;
                esac
                if [[ -z $place ]]; then
                    COMPREPLY=($(compgen -W "\(manuals.map(\.tool.rawValue).joined(separator: " ")) manual completion --help --version" -- "$current"))
                    return
                fi
                # The first word that is no option may be a command.
                if [[ $place == img ]]; then
                    while ((index < COMP_CWORD)); do
                        if [[ ${COMP_WORDS[index]} != -* ]]; then place=img/${COMP_WORDS[index]}; break; fi
                        ((index++))
                    done
                fi
                case $place in
            \(cases)        *) return ;;
                esac
                if [[ " $valued " == *" $previous "* ]]; then return; fi
                if [[ $current == -* ]]; then
                    COMPREPLY=($(compgen -W "$options" -- "$current"))
                elif [[ -n $words ]]; then
                    COMPREPLY=($(compgen -W "$words" -- "$current"))
                fi
            }
            complete -o default -F _strata strata \(manuals.map { "strata-\($0.tool.rawValue)" }.joined(separator: " "))

            """
    }

    // MARK: zsh

    private static func zsh(_ manuals: [ToolManual]) -> String {
        func quoted(_ text: String) -> String { text.replacing("'", with: "'\\''") }
        func described(_ text: String) -> String {
            quoted(text.replacing("\\", with: "\\\\").replacing("[", with: "\\[").replacing("]", with: "\\]").replacing(":", with: "\\:"))
        }
        func specification(_ option: ToolManual.Option) -> String {
            let value = option.value.map { ":\($0.lowercased()):_files" } ?? ""
            let help = described(option.help.first ?? "")
            switch (option.short, option.long) {
            case (let short?, let long?): return "'*'{-\(short),--\(long)}'[\(help)]\(value)'"
            case (let short?, nil): return "'*-\(short)[\(help)]\(value)'"
            case (nil, let long?): return "'*--\(long)[\(help)]\(value)'"
            case (nil, nil): return ""
            }
        }
        var cases = ""
        for place in places(manuals) {
            let rest = place.words.isEmpty ? "'*:file:_files'" : "'1:command:(\(place.words.map(\.word).joined(separator: " ")))' '*:file:_files'"
            cases += "        \(place.path)) _arguments -s \(place.options.map(specification).joined(separator: " ")) \(rest) ;;\n"
        }
        let tools = manuals.map { "'\($0.tool.rawValue):\(described($0.tool.summary))'" }.joined(separator: " ")
        return """
            #compdef strata \(manuals.map { "strata-\($0.tool.rawValue)" }.joined(separator: " "))
            # Completion of strata's command lines for zsh.

            _strata() {
                local place=
                local -a tools
                tools=(\(tools))
                case ${words[1]:t} in
                    strata-*) place=${${words[1]:t}#strata-} ;;
                    *)
                        if ((CURRENT == 2)); then _describe tool tools; return; fi
                        place=${words[2]}
                        shift words
                        ((CURRENT--))
                        ;;
                esac
                if [[ $place == img && CURRENT -gt 2 && ${words[2]} != -* ]]; then
                    place=img/${words[2]}
                    shift words
                    ((CURRENT--))
                fi
                case $place in
            \(cases)    esac
            }
            _strata "$@"

            """
    }

    // MARK: fish

    private static func fish(_ manuals: [ToolManual]) -> String {
        func quoted(_ text: String) -> String { "'" + text.replacing("\\", with: "\\\\").replacing("'", with: "\\'") + "'" }
        var script = "# Completion of strata's command lines for fish.\n\n"
        let tools = manuals.map(\.tool.rawValue).joined(separator: " ")
        for manual in manuals {
            script += "complete -c strata -f -n 'not __fish_seen_subcommand_from \(tools)' -a \(manual.tool.rawValue) -d \(quoted(manual.tool.summary))\n"
        }
        for place in places(manuals) {
            let words = place.path.split(separator: "/")
            let siblings = place.words.map(\.word).joined(separator: " ")
            let here = words.map { "__fish_seen_subcommand_from \($0)" }.joined(separator: "; and ")
            for (word, summary) in place.words {
                script += "complete -c strata -f -n '\(here); and not __fish_seen_subcommand_from \(siblings)' -a \(word) -d \(quoted(summary))\n"
            }
            let condition = siblings.isEmpty ? here : "\(here); and not __fish_seen_subcommand_from \(siblings)"
            for option in place.options {
                var line = "complete -c strata -n '\(condition)'"
                if let short = option.short { line += " -s \(short)" }
                if let long = option.long { line += " -l \(long)" }
                if option.value != nil { line += " -r" }
                script += line + " -d \(quoted(option.help.first ?? ""))\n"
            }
        }
        return script
    }
}
