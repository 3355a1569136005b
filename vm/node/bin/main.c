/* th-node: the node agent as a program of its own. `thimbled node` is the same entry. */
#include "vm/node/node.h"

int main(int argc, char **argv)
{
    return th_node_main(argc, argv);
}
