/* mesh/binding.h -- which CPUs and which memory each rank runs on.
 *
 * The ranks under one kernel get disjoint shares of the CPUs that they may use, neighbours in the machine,
 * whole cores where there are enough. With more ranks than CPUs they share all of them: a rank bound
 * to a core together with others would wait for them whatever else is idle. What a launcher has
 * bound rank by rank stays. Bind before threads are started and buffers touched: threads inherit
 * CPUs and memory from who starts them, and a page lies where it is first touched. */
#ifndef TV_MESH_BINDING_H
#define TV_MESH_BINDING_H
#include "mesh/machine.h"

TV_BEGIN_C
enum { TV_MAX_CPUS = 8192, TV_BIND_TEXT = 128 };
struct tv_cpu_mask {
    unsigned long bits[TV_MAX_CPUS / (8 * sizeof(unsigned long))];
};
void tv_cpu_mask_add(struct tv_cpu_mask *mask, int cpu);
int tv_cpu_mask_has(const struct tv_cpu_mask *mask, int cpu);
int tv_cpu_mask_count(const struct tv_cpu_mask *mask);
/* "0-3,8", as the kernel writes it, cut to fit. */
void tv_cpu_mask_text(const struct tv_cpu_mask *mask, char *text_out, size_t bytes);
/* The CPUs this thread may run on. Errors: TV_UNSUPPORTED. */
TV_MUST_CHECK tv_status_t tv_cpu_mask_now(struct tv_cpu_mask *mask_out);

struct tv_bind_share {
    struct tv_cpu_mask cpus, numas; /* numas: the nodes that the CPUs belong to, by OS index */
    int is_shared;                  /* there are fewer CPUs than ranks: others have the same */
    int misses_wish;                /* its NUMA node has no CPU that may be used */
};
/* Pure. cpus [num_cpus] in the order of the machine; wishes [num_ranks]: the NUMA node (OS index) of
 * each rank's GPU, or -1; NULL: none. Ranks that wish for one node share it; ranks whose wish cannot
 * be met, or that have none, share the nodes nobody wishes for, or everything where there are none.
 * shares_out [num_ranks]. Errors: TV_INVALID (no CPU), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_binding_plan(int num_cpus, const struct tv_cpu *cpus, int num_ranks,
                                          const int *wishes, struct tv_bind_share *shares_out);

typedef enum {
    TV_BIND_NONE,   /* not asked for, or refused by the system */
    TV_BIND_OWN,    /* CPUs that no other rank has */
    TV_BIND_SHARED, /* more ranks than CPUs */
    TV_BIND_KEPT    /* the launcher had bound each rank */
} tv_bind_kind_t;
const char *tv_bind_kind_name(tv_bind_kind_t kind);

struct tv_binding {
    tv_bind_kind_t kind;
    int32_t num_cpus;
    int32_t place;             /* position in the machine of the first CPU */
    char cpus[TV_BIND_TEXT];   /* as the kernel says it */
    char memory[TV_BIND_TEXT]; /* NUMA nodes; "" when not bound */
};
/* Bind this thread (and those it starts). is_wanted 0: only say where it may run. numa: the node (OS
 * index) of this rank's GPU, or -1. What the system refuses is a warning with the mask in force, not
 * an error. Collective over world.
 * Errors: TV_NO_MEMORY, TV_PEER. */
TV_MUST_CHECK tv_status_t tv_bind(struct tv_comm *world, const struct tv_nodes *nodes,
                                  const struct tv_machine *machine, int is_wanted, int numa,
                                  struct tv_binding *binding_out);
/* Bind this thread to exactly `mask` and compare with the kernel's own view of it. Errors:
 * TV_UNSUPPORTED, naming what was asked for and what is in force. */
TV_MUST_CHECK tv_status_t tv_bind_thread(const struct tv_cpu_mask *mask);
TV_END_C
#endif
