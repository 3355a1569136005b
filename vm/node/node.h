#ifndef TH_NODE_H
#define TH_NODE_H
/* Below --run: what `crun --version` prints, where init has asked already. May be missing. */
#define TH_NODE_CRUN_VERSION "crun-version"
/* The node agent, `thimbled node`: runs the pods bound to one node. Options: see `--help`.
 * Returns the exit code. Needs root. */
int th_node_main(int argc, char **argv);
#endif
