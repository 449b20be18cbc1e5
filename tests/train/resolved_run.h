// A run of a small model from flags, and its ranks as threads.
#ifndef TV_TESTS_TRAIN_RESOLVED_RUN_H
#define TV_TESTS_TRAIN_RESOLVED_RUN_H
#include "test_options.h"
#include <algorithm>
#include <functional>
#include <gtest/gtest.h>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

// A struct and a function of one name (tv_comm_stats) are usual in C; C++ calls it shadowing.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "train/checkpoint_internal.h"
#include "train/trainer_internal.h"
#pragma GCC diagnostic pop

using Flags = std::vector<std::string>;

inline Flags operator+(Flags a, const Flags &b)
{
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

// Where the small model is trained, and what else is asked for.
struct Mesh {
    const char *name;
    int pp, dp, tp, zero;
    Flags more;

    int num_ranks() const
    {
        return pp * dp * tp;
    }
    Flags flags() const
    {
        return Flags{"--pp", std::to_string(pp), "--dp",         std::to_string(dp),
                     "--tp", std::to_string(tp), "--zero-stage", std::to_string(zero)} +
               more;
    }
};
inline std::ostream &operator<<(std::ostream &out, const Mesh &mesh)
{
    return out << mesh.name;
}

// Sizes that divide by nothing: 97 ids over 2 or 4 tensor ranks, 3 replicas, blocks of 16 that do not fit.
inline Flags small_model()
{
    return {"--num-layers",
            "3",
            "--hidden-size",
            "24",
            "--num-attention-heads",
            "4",
            "--vocab-size",
            "97",
            "--ffn-hidden-size",
            "52",
            "--seq-length",
            "8",
            "--global-batch-size",
            "12",
            "--data-format",
            "u16",
            "--threads",
            "1",
            "--adam-eps",
            "1e-6",
            "--lr",
            "1e-3"};
}

struct Resolved {
    Words words;
    struct tv_train_options options = {};
    struct tv_run run = {};

    Resolved(const Flags &flags, int num_ranks) : words("train", flags)
    {
        EXPECT_EQ(tv_train_options_parse(words.argc(), words.argv.data(), &options), TV_OK)
            << tv_error_message();
        EXPECT_EQ(tv_run_resolve(&options, num_ranks, &run), TV_OK) << tv_error_message();
    }
    ~Resolved()
    {
        tv_run_free(&run);
        tv_train_options_free(&options);
    }
    Resolved(const Resolved &) = delete;
    Resolved &operator=(const Resolved &) = delete;
};

// One function call per rank, in a thread each; a failed assertion of one ends the others.
inline void on_ranks(int size, const std::function<void(struct tv_comm *, int)> &body)
{
    std::vector<struct tv_comm *> comms((size_t)size);
    ASSERT_EQ(tv_comm_thread_create(size, comms.data()), TV_OK);
    std::vector<std::thread> threads;
    for (int r = 0; r < size; r++)
        threads.emplace_back([&, r] {
            struct tv_comm *world = comms[(size_t)r];
            body(world, r);
            if (::testing::Test::HasFatalFailure())
                tv_comm_abort(world, 1);
            tv_comm_destroy(world);
        });
    for (auto &thread : threads)
        thread.join();
}
#endif
