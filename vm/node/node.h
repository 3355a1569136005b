#ifndef TH_NODE_H
#define TH_NODE_H
/* The node agent, `thimbled node`: runs the pods bound to one node. Options: see `--help`.
 * Returns the exit code. Needs root. */
int th_node_main(int argc, char **argv);
#endif
