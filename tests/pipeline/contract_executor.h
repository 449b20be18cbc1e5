/* tests/pipeline/contract_executor.h -- what the executor does with any communicator, and the
 * stage functions that watch it. */
#ifndef TESTS_PIPELINE_CONTRACT_EXECUTOR_H
#define TESTS_PIPELINE_CONTRACT_EXECUTOR_H
#include "mesh/ranks.h"
#include "pipeline/executor.h"
#include "pipeline/table.h"

const std::vector<RankCase> &executor_cases();

/* Chunk by chunk, for any placement: all F of a chunk, ascending; then all backwards, chunks
 * descending, micro-batches ascending. is_split: I for B, each chunk's W behind the I of the next.
 */
Table chunkwise(Table empty, bool is_split);
/* Stage r holds positions r v .. r v + v - 1: all but two neighbours are on the same stage. */
Table blocks(int P, int v, int m);
/* Any placement, any order that can be executed, backwards whole and in two parts, not ascending. */
Table any_order(int P, int v, int m, unsigned seed);
/* Of each sort, at this size: every known schedule with up to 3 chunks, and others. */
std::vector<Table> tables(int P, int m);

/* One call of a stage function. */
struct Call {
    tv_action_kind_t kind;
    struct tv_stage_call args;
};

/* The stage functions of y = f x + micro-batch + 1 at each position, f = 1 or 2. All values are
 * integers that fit a float, and tell step, micro-batch, position and element. Checks what each
 * call is given. */
class LinearStage
{
  public:
    int64_t step = 0;
    bool has_delays = false, is_eval = false;
    int late_us = 0;     /* added to each delay */
    int fail_micro = -1; /* forward of this micro-batch fails */
    std::vector<Call> calls;
    std::function<void()> after_call = [] {}, before_call = [] {};

    LinearStage(struct tv_comm *pipe, Table *table, int64_t count);
    struct tv_stage_functions functions();

  private:
    int stage, num_micro;
    int64_t count, stride; /* of the elements that are computed and looked at, fewer of many */
    const struct tv_schedule *schedule;
    std::vector<std::vector<int>> slots, works; /* [chunks, ..] the micro-batch there, or -1 */
    std::vector<int> num_weight_gradients;      /* [chunks] */

    tv_status_t call(tv_action_kind_t kind, const struct tv_stage_call &call);
    int last_position() const;
    int position_of(const struct tv_stage_call &call) const;
    float input(int position, int micro, int64_t j) const;
    float gradient(int position, int micro, int64_t j) const;
    void expect_values(const float *got, const char *what, const struct tv_stage_call &call) const;
    void expect_places(tv_action_kind_t kind, const struct tv_stage_call &call);
    void forward(const struct tv_stage_call &call);
    void backward(tv_action_kind_t kind, const struct tv_stage_call &call);
    void delay(const struct tv_stage_call &call) const;
};

/* A rank's device, executor and stage functions for one schedule. */
struct Pipeline {
    Table table;
    struct tv_device *device = nullptr;
    struct tv_stream *stream = nullptr;
    struct tv_executor *executor = nullptr;
    LinearStage stage;
    bool has_failed = false; /* then the executor is only good for being destroyed */

    Pipeline(struct tv_comm *pipe, Table schedule, int64_t count);
    ~Pipeline();
    Pipeline(const Pipeline &) = delete;
    Pipeline &operator=(const Pipeline &) = delete;
    tv_status_t run(struct tv_executor_report *report);
    /* One step, which must end well, call what the schedule says, in its order, and account for its
     * time. */
    void expect_step();
    /* An evaluation: each chunk's micro-batches in order. */
    void expect_evaluation(int num_micro);
    int64_t bytes() const; /* open on the device */

  private:
    void expect_times(const struct tv_executor_report &report) const;
};
#endif
