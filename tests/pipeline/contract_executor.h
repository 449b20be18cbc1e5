/* tests/pipeline/contract_executor.h -- what the executor does with any communicator, and the
 * stage functions that watch it. */
#ifndef TESTS_PIPELINE_CONTRACT_EXECUTOR_H
#define TESTS_PIPELINE_CONTRACT_EXECUTOR_H
#include "mesh/ranks.h"
#include "pipeline/executor.h"
#include "pipeline/table.h"

const std::vector<RankCase> &executor_cases();

/* One call of a stage function. */
struct Call {
    tv_action_kind_t kind;
    struct tv_stage_call args;
};

/* The stage functions of y = f x + micro-batch at each position, f = 1 or 2. All values are
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

    LinearStage(struct tv_comm *pipe, Table *table, int64_t count);
    struct tv_stage_functions functions();

  private:
    int stage, num_micro, num_slots;
    int64_t count, stride; /* of the elements that are computed and looked at, fewer of many */
    const struct tv_schedule *schedule;
    std::vector<int> holders; /* [slots] micro-batch * chunks + chunk, or -1 */

    int last_position() const;
    int position_of(const struct tv_stage_call &call) const;
    float input(int position, int micro, int64_t j) const;
    float gradient(int position, int micro, int64_t j) const;
    void expect_values(const float *got, const char *what, const struct tv_stage_call &call) const;
    void forward(const struct tv_stage_call &call);
    void backward(const struct tv_stage_call &call);
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
    /* One step, which must end well and call what the schedule says, in its order. */
    void expect_step();
    int64_t bytes() const; /* open on the device */
};
#endif
