/* th-node: the node agent as a program of its own. `thimbled node` is the same entry. */
#include "vm/node/node.h"
#include <stdbool.h>
#include <string.h>

int main(int argc, char **argv)
{
    bool word = argc > 1 && strcmp(argv[1], "node") == 0; /* as `thimbled node` is called */
    return th_node_main(word ? argc - 1 : argc, word ? argv + 1 : argv);
}
