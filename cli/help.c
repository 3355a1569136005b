/*
 * Help text, printed from the command table: an overview by groups, and a page per command with
 * usage, options, details and examples. Lines stay within 100 columns; paragraphs in `details` are
 * written with their line breaks.
 */
#include "cli/cmd.h"
#include "base/buf.h"

static void print_options(const struct th_cmd_opt *opts, struct th_buf *b)
{
    size_t width = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (const struct th_cmd_opt *o = opts; o->name; o++) {
            struct th_buf left = TH_BUF_INIT;
            if (o->short_name) {
                th_buf_printf(&left, "  -%c, --%s", o->short_name, o->name);
            } else {
                th_buf_printf(&left, "      --%s", o->name);
            }
            if (o->arg) {
                th_buf_printf(&left, " %s", o->arg);
            }
            if (pass == 0) {
                width = left.n > width ? left.n : width;
            } else {
                th_buf_printf(b, "%-*s  %s", (int)width, th_buf_cstr(&left), o->help);
                if (o->choices) {
                    th_buf_puts(b, ": ");
                    for (size_t i = 0; o->choices[i]; i++) {
                        th_buf_printf(b, "%s%s", i ? "|" : "", o->choices[i]);
                    }
                }
                if (o->dflt) {
                    th_buf_printf(b, " (default %s)", o->dflt);
                }
                th_buf_putc(b, '\n');
            }
            th_buf_done(&left);
        }
    }
}

static void print_table(const struct th_cmd *const *table, const char *group, struct th_buf *b)
{
    for (size_t i = 0; table[i]; i++) {
        if (!table[i]->hidden && (!group || th_streq(table[i]->group, group))) {
            th_buf_printf(b, "  %-12s %s\n", table[i]->name, table[i]->summary);
        }
    }
}

static void print_overview(struct th_buf *b)
{
    th_buf_puts(b, "Kubernetes for one person's machine.\n\n"
                   "Usage: thimble COMMAND [OPTIONS]\n");
    for (size_t i = 0; th_commands[i]; i++) {
        const char *group = th_commands[i]->group;
        bool first = !th_commands[i]->hidden;
        for (size_t j = 0; j < i && first; j++) {
            first = th_commands[j]->hidden || !th_streq(th_commands[j]->group, group);
        }
        if (first) {
            th_buf_printf(b, "\n%s\n", group);
            print_table(th_commands, group, b);
        }
    }
    th_buf_puts(b, "\nGlobal options\n");
    print_options(th_global_opts, b);
    th_buf_puts(b, "\n\"thimble help COMMAND\" tells more about a command.\n");
}

void th_help_print(const struct th_cmd *cmd, const char *path, struct th_buf *b)
{
    if (!cmd) {
        print_overview(b);
        return;
    }
    th_buf_printf(b, "%s.\n\n", cmd->summary);
    th_buf_printf(b, "Usage: thimble %s%s%s%s\n", path, cmd->subs ? " COMMAND" : "",
                  cmd->args && *cmd->args ? " " : "", cmd->args ? cmd->args : "");
    if (cmd->details) {
        th_buf_printf(b, "\n%s\n", cmd->details);
    }
    if (cmd->subs) {
        th_buf_puts(b, "\nCommands\n");
        print_table(cmd->subs, NULL, b);
    }
    if (cmd->opts) {
        th_buf_puts(b, "\nOptions\n");
        print_options(cmd->opts, b);
    }
    th_buf_puts(b, "\nGlobal options\n");
    print_options(th_global_opts, b);
    if (cmd->examples) {
        th_buf_puts(b, "\nExamples\n");
        for (size_t i = 0; cmd->examples[i]; i++) {
            th_buf_printf(b, "  %s\n", cmd->examples[i]);
        }
    }
}
