/*
 * Shell completion, generated from the command table: the script of a shell holds every command,
 * option and choice as text, so that completing runs nothing. What can only be known at the moment
 * (profiles, images, services) is asked of the hidden `thimble __complete WHAT`, which prints one
 * name a line and nothing when there is no cluster.
 */
#include "cli/cmd.h"
#include "base/buf.h"

static void words_of_opts(const struct th_cmd_opt *opts, struct th_buf *b)
{
    for (const struct th_cmd_opt *o = opts; o && o->name; o++) {
        th_buf_printf(b, "--%s ", o->name);
        if (o->short_name) {
            th_buf_printf(b, "-%c ", o->short_name);
        }
    }
}

static void words_of_table(const struct th_cmd *const *table, struct th_buf *b)
{
    for (size_t i = 0; table[i]; i++) {
        if (!table[i]->hidden) {
            th_buf_printf(b, "%s ", table[i]->name);
        }
    }
}

static void bash_value(const struct th_cmd_opt *o, struct th_buf *b)
{
    if (o->choices) {
        th_buf_puts(b, "words=\"");
        for (size_t i = 0; o->choices[i]; i++) {
            th_buf_printf(b, "%s ", o->choices[i]);
        }
        th_buf_putc(b, '"');
    } else if (th_streq(o->complete, "file") || th_streq(o->complete, "dir")) {
        th_buf_printf(b, "COMPREPLY=($(compgen -%c -- \"$cur\")); return",
                      th_streq(o->complete, "dir") ? 'd' : 'f');
    } else if (o->complete) {
        th_buf_printf(b, "words=\"$(thimble __complete %s \"${of[@]}\" 2>/dev/null)\"",
                      o->complete);
    } else {
        th_buf_puts(b, "return");
    }
}

/* One case arm per command path that says which words may follow it. */
static void bash_command(const struct th_cmd *c, const char *path, struct th_buf *b)
{
    th_buf_printf(b, "    \"%s\")\n        case \"$prev\" in\n", path);
    const struct th_cmd_opt *tables[] = {c->opts, th_global_opts};
    for (size_t t = 0; t < TH_ARRAY_LEN(tables); t++) {
        for (const struct th_cmd_opt *o = tables[t]; o && o->name; o++) {
            if (!o->arg) {
                continue;
            }
            th_buf_printf(b, "        --%s", o->name);
            if (o->short_name) {
                th_buf_printf(b, "|-%c", o->short_name);
            }
            th_buf_puts(b, ") ");
            bash_value(o, b);
            th_buf_puts(b, " ;;\n");
        }
    }
    th_buf_puts(b, "        *) case \"$cur\" in -*) words=\"");
    words_of_opts(c->opts, b);
    words_of_opts(th_global_opts, b);
    th_buf_puts(b, "\" ;; *) ");
    if (c->subs) {
        th_buf_puts(b, "words=\"");
        words_of_table(c->subs, b);
        th_buf_putc(b, '"');
    } else if (c->complete) {
        bash_value(&(struct th_cmd_opt){.complete = c->complete}, b);
    } else {
        th_buf_putc(b, ':');
    }
    th_buf_puts(b, " ;; esac ;;\n        esac ;;\n");
    for (size_t i = 0; c->subs && c->subs[i]; i++) {
        th_autofree char *sub = th_xasprintf("%s %s", path, c->subs[i]->name);
        bash_command(c->subs[i], sub, b);
    }
}

static void script_bash(struct th_buf *b)
{
    th_buf_puts(b,
                "# bash completion of thimble; load it with: source <(thimble completion bash)\n"
                "_thimble() {\n"
                "    local cur=\"${COMP_WORDS[COMP_CWORD]}\" prev=\"${COMP_WORDS[COMP_CWORD-1]}\"\n"
                "    local words=\"\" path=\"\" w i skip=0 of=()\n"
                "    COMPREPLY=()\n"
                "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                "        w=\"${COMP_WORDS[i]}\"\n"
                "        if ((skip)); then skip=0; continue; fi\n"
                "        case \"$w\" in -p|--profile) skip=1\n"
                "            ((i + 1 < COMP_CWORD)) && of=(-p \"${COMP_WORDS[i+1]}\") ;;\n"
                "        -o|--output) skip=1 ;; -*) ;;\n"
                "        *) case \"$path\" in ''");
    for (size_t i = 0; th_commands[i]; i++) {
        if (th_commands[i]->subs) {
            th_buf_printf(b, "|%s", th_commands[i]->name);
        }
    }
    th_buf_puts(b, ") path=\"${path:+$path }$w\" ;; esac ;; esac\n"
                   "    done\n"
                   "    case \"$path\" in\n"
                   "    \"\") case \"$cur\" in -*) words=\"");
    words_of_opts(th_global_opts, b);
    th_buf_puts(b, "--version\" ;; *) words=\"");
    words_of_table(th_commands, b);
    th_buf_puts(b, "\" ;; esac ;;\n");
    for (size_t i = 0; th_commands[i]; i++) {
        if (!th_commands[i]->hidden) {
            bash_command(th_commands[i], th_commands[i]->name, b);
        }
    }
    th_buf_puts(b, "    esac\n"
                   "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
                   "}\n"
                   "complete -F _thimble thimble\n");
}

static void script_zsh(struct th_buf *b)
{
    /* zsh runs bash's completion functions, so there is one generator to keep right. */
    th_buf_puts(b, "#compdef thimble\n"
                   "# zsh completion of thimble; load it with: source <(thimble completion zsh)\n"
                   "autoload -U +X compinit && compinit -u\n"
                   "autoload -U +X bashcompinit && bashcompinit\n");
    script_bash(b);
}

static void fish_quote(struct th_buf *b, const char *s)
{
    th_buf_putc(b, '\'');
    for (; *s; s++) {
        if (*s == '\'' || *s == '\\') {
            th_buf_putc(b, '\\');
        }
        th_buf_putc(b, *s);
    }
    th_buf_putc(b, '\'');
}

static void fish_opts(const struct th_cmd_opt *opts, const char *condition, struct th_buf *b)
{
    for (const struct th_cmd_opt *o = opts; o && o->name; o++) {
        th_buf_printf(b, "complete -c thimble -n %s -l %s", condition, o->name);
        if (o->short_name) {
            th_buf_printf(b, " -s %c", o->short_name);
        }
        if (o->arg) {
            bool files = th_streq(o->complete, "file") || th_streq(o->complete, "dir");
            th_buf_puts(b, files ? " -r" : " -x");
        }
        if (o->choices) {
            th_buf_puts(b, " -a '");
            for (size_t i = 0; o->choices[i]; i++) {
                th_buf_printf(b, "%s%s", i ? " " : "", o->choices[i]);
            }
            th_buf_putc(b, '\'');
        } else if (o->arg && o->complete && !th_streq(o->complete, "file") &&
                   !th_streq(o->complete, "dir")) {
            th_buf_printf(b, " -a '(__thimble_names %s)'", o->complete);
        }
        th_buf_puts(b, " -d ");
        fish_quote(b, o->help);
        th_buf_putc(b, '\n');
    }
}

static void fish_command(const struct th_cmd *c, const char *condition, struct th_buf *b)
{
    fish_opts(c->opts, condition, b);
    if (c->complete && !th_streq(c->complete, "file") && !th_streq(c->complete, "dir")) {
        th_buf_printf(b, "complete -c thimble -n %s -f -a '(__thimble_names %s)'\n", condition,
                      c->complete);
    }
    for (size_t i = 0; c->subs && c->subs[i]; i++) {
        th_buf_printf(b, "complete -c thimble -n %s -f -a %s -d ", condition, c->subs[i]->name);
        fish_quote(b, c->subs[i]->summary);
        th_buf_putc(b, '\n');
        th_autofree char *sub =
            th_xasprintf("'__fish_seen_subcommand_from %s; and __fish_seen_subcommand_from %s'",
                         c->name, c->subs[i]->name);
        fish_command(c->subs[i], sub, b);
    }
}

static void script_fish(struct th_buf *b)
{
    th_buf_puts(b,
                "# fish completion of thimble; load it with: thimble completion fish | source\n"
                "function __thimble_names # WHAT: names from the cluster of the line's -p\n"
                "    set -l words (commandline -opc)\n"
                "    set -l of\n"
                "    if set -l i (contains -i -- -p $words; or contains -i -- --profile $words)\n"
                "        test $i -lt (count $words); and set of -p $words[(math $i + 1)]\n"
                "    end\n"
                "    thimble __complete $argv $of 2>/dev/null\n"
                "end\n");
    fish_opts(th_global_opts, "'true'", b);
    for (size_t i = 0; th_commands[i]; i++) {
        const struct th_cmd *c = th_commands[i];
        if (c->hidden) {
            continue;
        }
        th_buf_printf(b, "complete -c thimble -n '__fish_use_subcommand' -f -a %s -d ", c->name);
        fish_quote(b, c->summary);
        th_buf_putc(b, '\n');
        th_autofree char *condition = th_xasprintf("'__fish_seen_subcommand_from %s'", c->name);
        fish_command(c, condition, b);
    }
}

int th_completion_script(const char *shell, struct th_buf *b, struct th_err *err)
{
    if (th_streq(shell, "bash")) {
        script_bash(b);
    } else if (th_streq(shell, "zsh")) {
        script_zsh(b);
    } else if (th_streq(shell, "fish")) {
        script_fish(b);
    } else {
        (void)th_fail(err, TH_R_USAGE, "no completion for the shell \"%s\"", shell);
        return th_hint(err, "there is one for bash, zsh and fish");
    }
    return 0;
}
