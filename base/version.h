#ifndef TH_BASE_VERSION_H
#define TH_BASE_VERSION_H
/* The Kubernetes release whose API this is: what /version, nodes and `thimble version` say. */
#define TH_KUBE_MAJOR "1"
#define TH_KUBE_MINOR "36"
#define TH_KUBE_PATCH "2"
#define TH_KUBE_VERSION "v" TH_KUBE_MAJOR "." TH_KUBE_MINOR "." TH_KUBE_PATCH
#endif
