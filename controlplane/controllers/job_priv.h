#ifndef TH_JOB_PRIV_H
#define TH_JOB_PRIV_H
/* Between the files of the Job controller: job.c (reconcile, making and deleting pods), job_count.c
 * (which pods count as what), job_indexes.c (sets of indexes as text). */
#include "controlplane/controllers/pod_control.h"

#define TH_JOB_FINALIZER "batch.kubernetes.io/job-tracking"
#define TH_JOB_INDEX "batch.kubernetes.io/job-completion-index"
#define TH_JOB_INDEX_FAILURES "batch.kubernetes.io/job-index-failure-count"

/* A set of numbers 0..n-1, written "1,3-5,7". */
struct th_indexes {
    bool *has;
    size_t n, count;
};
void th_indexes_init(struct th_indexes *s, size_t n, const char *text);
void th_indexes_done(struct th_indexes *s);
void th_indexes_add(struct th_indexes *s, size_t i);
char *th_indexes_text(const struct th_indexes *s); /* the caller frees */

/* One reconcile of one Job. */
struct th_job {
    struct th_ctrl *c;
    const char *key;
    struct th_json *job;    /* our copy */
    struct th_json *status; /* what it becomes; borrowed from job */
    struct th_pods pods;    /* all of the job */
    struct th_pods active;  /* of them, neither ended nor being deleted */
    int64_t ready, terminating;
    int64_t succeeded, failed; /* counted, uncounted ones included */
    bool indexed;
    struct th_indexes completed, failed_indexes;
    char *fail_reason, *fail_message; /* why the job is to fail, or NULL */
    int64_t *ret_after_ms;
};
bool th_job_condition(const struct th_job *j, const char *type);
/* Counts what has ended since, in status.uncountedTerminatedPods first; sets succeeded, failed,
 * indexes and, by the pod failure policy, why the job fails. */
void th_job_count(struct th_job *j);
/* Takes the finalizer off the pods that the stored status has noted (or that need no counting any
 * more). */
int th_job_release_pods(struct th_job *j, bool finished, struct th_err *err) TH_MUST_USE;
bool th_job_is_tracked(const struct th_json *pod); /* carries the finalizer */
int th_job_untrack(struct th_ctrl *c, const char *key, const struct th_json *pod,
                   struct th_err *err) TH_MUST_USE; /* takes it off; key (or NULL) awaits it */
bool th_job_pod_failed(const struct th_job *j, const struct th_json *pod);
int64_t th_job_pod_index(const struct th_json *pod); /* -1: none */
int64_t th_job_pod_finished_ms(const struct th_json *pod);
/* Failures of this index so far. */
int64_t th_job_index_failures(const struct th_job *j, int64_t index);
#endif
