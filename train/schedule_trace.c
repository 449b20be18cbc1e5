/* train/schedule_trace.c -- predicted times as a timeline. */
#include "train/schedule_trace.h"
#include "train/schedule_report.h"
#include <jansson.h>
#include <stdio.h>

/* Threads of a stage. Messages on their way overlap: each goes to the first lane that is free. */
enum { TID_COMPUTE, TID_RECEIVES, TID_SENDS, MAX_LANES = 16 };

struct stage_trace {
    const struct tv_schedule_plan *plan;
    struct tv_trace *trace;
    int stage;
    double seconds_per_unit;
    double received;              /* end of the last receive: they wait one after the other */
    double lane_until[MAX_LANES]; /* of sends */
    int num_lanes;
};

static int lane_for(struct stage_trace *t, struct tv_action_time time)
{
    int lane = 0;
    while (lane < t->num_lanes && t->lane_until[lane] > time.start)
        lane++;
    if (lane == MAX_LANES)
        lane--;
    if (lane == t->num_lanes) {
        tv_trace_name_thread(t->trace, t->stage, TID_SENDS + lane, "sends");
        t->num_lanes++;
    }
    t->lane_until[lane] = time.end;
    return lane;
}

static int is_receive(tv_action_kind_t kind)
{
    return kind == TV_ACT_RECV_FORWARD || kind == TV_ACT_RECV_BACKWARD;
}

void tv_trace_add_action(struct tv_trace *trace, const struct tv_schedule *schedule, int stage,
                         const struct tv_action *a, int pid, int tid, struct tv_action_time time)
{
    char name[32];
    snprintf(name, sizeof(name), "%s%d", tv_action_kind_name(a->kind), a->micro);
    json_t *args = json_pack("{s:i, s:i, s:i}", "micro_batch", a->micro, "chunk", a->chunk,
                             "position", tv_schedule_position(schedule, stage, a->chunk));
    if (args != NULL && a->peer >= 0)
        json_object_set_new(args, "peer", json_integer(a->peer));
    const struct tv_trace_event event = {.name = name,
                                         .category = a->peer >= 0 ? "message" : "compute",
                                         .pid = pid,
                                         .tid = tid,
                                         .start = time.start,
                                         .duration = time.end - time.start,
                                         .args = args};
    tv_trace_add(trace, &event);
}

static void add_action(struct stage_trace *t, int i)
{
    const struct tv_action *a = &t->plan->schedule.stages[t->stage].actions[i];
    struct tv_action_time time = t->plan->timing.stages[t->stage].times[i];
    int tid = TID_COMPUTE;
    if (is_receive(a->kind)) {
        tid = TID_RECEIVES;
        time.start = time.start > t->received ? time.start : t->received;
        time.end = time.end > time.start ? time.end : time.start;
        t->received = time.end;
    } else if (a->peer >= 0) {
        tid = TID_SENDS + lane_for(t, time);
    }
    time.start *= t->seconds_per_unit;
    time.end *= t->seconds_per_unit;
    tv_trace_add_action(t->trace, &t->plan->schedule, t->stage, a, t->stage, tid, time);
}

tv_status_t tv_schedule_write_trace(const struct tv_schedule_plan *plan, double seconds_per_unit,
                                    const char *path)
{
    struct tv_trace *trace;
    TV_TRY(tv_trace_open(path, &trace));
    for (int s = 0; s < plan->schedule.num_stages; s++) {
        struct stage_trace t = {
            .plan = plan, .trace = trace, .stage = s, .seconds_per_unit = seconds_per_unit};
        char name[32];
        snprintf(name, sizeof(name), "stage %d", s);
        tv_trace_name_process(trace, s, name);
        tv_trace_name_thread(trace, s, TID_COMPUTE, "compute");
        tv_trace_name_thread(trace, s, TID_RECEIVES, "receives");
        for (int i = 0; i < plan->schedule.stages[s].num_actions; i++)
            add_action(&t, i);
    }
    return tv_trace_close(trace);
}
