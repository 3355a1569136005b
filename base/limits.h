#ifndef TH_BASE_LIMITS_H
#define TH_BASE_LIMITS_H
/* Every limit on what comes from outside, in one place. Upstream's value where it has one. */
#define TH_LIMIT_JSON_DEPTH 128
#define TH_LIMIT_YAML_NODES 1000000
#define TH_LIMIT_BODY_B (3u << 20)      /* request body: etcd/apiserver's 3 MiB */
#define TH_LIMIT_OBJECT_B (1536u << 10) /* one object at rest: etcd's 1.5 MiB */
#define TH_LIMIT_REQUEST_HEAD_B (32u << 10) /* request line and headers; zeroed for each request */
#define TH_LIMIT_HEADER_B (64u << 10)   /* of an answer that is passed on, of a certificate request */
#define TH_LIMIT_LIST_PAGE 500          /* what kubectl asks for */
#define TH_LIMIT_WATCH_QUEUE 4096       /* events waiting for one slow watcher */
#define TH_LIMIT_WATCH_QUEUE_B (16u << 20)
#define TH_LIMIT_WATCHERS 20000
#define TH_LIMIT_WRITE_QUEUE 4096 /* writes waiting for the group commit */
#define TH_LIMIT_COMMIT_ROWS 512  /* rows of one group commit */
#define TH_LIMIT_PATCH_OPS 10000  /* operations of one JSON patch */
#define TH_LIMIT_ANNOTATIONS_B (256u << 10)
#define TH_LIMIT_SELECTOR_B (16u << 10)
#define TH_LIMIT_SERIES 4096     /* of one metric */
#define TH_LIMIT_CONTINUE_B 4096 /* a continue token */
#define TH_LIMIT_REGEX_B (64u << 10)
#define TH_LIMIT_CEL_B (16u << 10) /* one expression */
#define TH_LIMIT_HOOK_SERVERS 64 /* webhook servers whose connections are kept */
#define TH_LIMIT_HOOK_CALLS 32    /* validating webhooks that one request calls at once */
#define TH_LIMIT_TLS_HANDSHAKES 512 /* at once; the oldest goes first */
#define TH_LIMIT_TLS_HANDSHAKE_MS 10000
#define TH_LIMIT_CONNECTIONS 16384
#define TH_LIMIT_TOKEN_B (16u << 10) /* a bearer token */
#define TH_LIMIT_TOKEN_CACHE 1024    /* tokens whose signature is remembered */
#define TH_LIMIT_WARNINGS_B 4096     /* all Warning headers of an answer together */
#define TH_LIMIT_WARNING_CUT_B 256   /* each of them, when they would be more */
#define TH_LIMIT_FORWARDED 32        /* addresses of X-Forwarded-For that are noted */
#define TH_LIMIT_IMPERSONATE 512     /* Impersonate-* headers of a request */
#define TH_LIMIT_CREDENTIALS 256 /* of registries, in one keyring */
#define TH_LIMIT_CREDENTIALS_B (1u << 20) /* a config.json; a Secret has no more either */
#define TH_LIMIT_HTML_TAG_B (64u << 10) /* of a page that passes a proxy */
#define TH_LIMIT_LAYER_B (16ull << 30)
#define TH_LIMIT_LAYER_ENTRIES 2000000
#define TH_LIMIT_MANIFEST_B (4u << 20)
#define TH_LIMIT_DOCKERFILE_B (1u << 20)
#define TH_LIMIT_CONTAINER_LOG_B (10u << 20) /* rotation size, kubelet's default */
#define TH_LIMIT_CONTAINER_LOG_FILES 5
#define TH_LIMIT_SPDY_HEADERS_B (64u << 10) /* of a stream, compressed and not */
#define TH_LIMIT_FORWARDS 1024 /* connections at once in one port-forward */
#define TH_LIMIT_DEVICES 4096 /* of the node, given to a privileged container */
#define TH_LIMIT_NODE_FAULT_B 50000 /* what a node says against showing a log, as upstream */
#define TH_LIMIT_PROBE_BODY_B (10u << 10) /* of an answer to a probe, as the kubelet */
#define TH_LIMIT_CONFIG_FILE_B (8u << 20) /* kubeconfig, profile state */
#define TH_LIMIT_HOST_PORTS 4096       /* forwards that a cluster may ask the host for */
#define TH_LIMIT_HOST_PORT_LINE_B 4096 /* an answer of the host */
#define TH_LIMIT_HEALTH_CHECKS 256     /* healthCheckNodePorts of a node; each has a thread */
#define TH_LIMIT_DNS_MESSAGE_B 65535
#define TH_LIMIT_DNS_WAITING 256 /* queries that wait for an upstream server */
#define TH_LIMIT_DNS_CACHE 1024  /* answers kept */
#define TH_LIMIT_DNS_CACHED_B 4096
#define TH_LIMIT_RESOLV_CONF_B (64u << 10)
#endif
