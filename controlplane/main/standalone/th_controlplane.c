/* The control plane as a program of its own: what `thimbled controlplane` runs, for tests and for
 * people who want an API server and nothing else. */
#include "controlplane/controlplane.h"

int main(int argc, char **argv)
{
    return th_controlplane_main(argc, argv);
}
