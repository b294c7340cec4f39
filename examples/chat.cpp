// chat: a conversation on an event loop of its own (poll), in C++; see docs/LIBPDD.md. Each line of standard input is a
// question; the answer appears while it is made, and Ctrl-D leaves.
//
//     chat MODEL.gguf|- URL|-
#include <pdd.h>
#include <poll.h>

#include <cstring>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

namespace
{

struct closer {
    void operator()(pdd_model *m) const { pdd_model_close(m); }
    void operator()(pdd_device *d) const { pdd_device_close(d); }
    void operator()(pdd_chat *c) const { pdd_chat_free(c); }
    void operator()(pdd_answer *a) const { pdd_answer_free(a); }
};
template <class T> using owned = std::unique_ptr<T, closer>;

// What a call of pdd.h makes, or its sentence as an exception.
template <class T, class Call> owned<T> make(Call call)
{
    T *made = nullptr;
    pdd_error error = {0, ""};
    if (call(&made, &error) < 0) throw std::runtime_error(error.text);
    return owned<T>(made);
}

int show(void *, const char *text, size_t length, const pdd_token *)
{
    return std::cout.write(text, static_cast<std::streamsize>(length)).flush() ? 0 : 1;
}

void ask(pdd_device *device, pdd_chat *chat, const std::string &text)
{
    pdd_question q = {};
    q.size = sizeof q;
    q.chat = chat;
    q.text = text.c_str();
    q.on_text = show;
    auto answer = make<pdd_answer>([&](auto made, auto error) { return pdd_ask_begin(device, &q, made, error); });
    pdd_error error = {0, ""};
    int code = PDD_MORE;
    while (code == PDD_MORE) { // other descriptors of the program would be in the same poll
        pollfd fd = {pdd_answer_fd(answer.get()), POLLIN, 0};
        poll(&fd, 1, -1);
        code = pdd_answer_dispatch(answer.get(), &error);
    }
    if (code < 0) throw std::runtime_error(error.text);
    pdd_report report = {};
    report.size = sizeof report;
    pdd_answer_report(answer.get(), &report, nullptr);
    std::cerr << "\n[" << report.cloud_tokens << " tokens of the cloud, " << report.device_tokens
              << " of the device: " << report.plan << "]\n";
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 3) {
        std::cerr << "usage: chat MODEL.gguf|- URL|-\n";
        return 2;
    }
    try {
        owned<pdd_model> model;
        pdd_model_options m = {};
        m.size = sizeof m;
        m.path = argv[1];
        if (std::strcmp(argv[1], "-") != 0)
            model = make<pdd_model>([&](auto made, auto error) { return pdd_model_open(&m, made, error); });
        pdd_device_options d = {};
        d.size = sizeof d;
        d.model = model.get();
        d.cloud_url = std::strcmp(argv[2], "-") != 0 ? argv[2] : nullptr;
        auto device = make<pdd_device>([&](auto made, auto error) { return pdd_device_open(&d, made, error); });
        auto chat = make<pdd_chat>([](auto made, auto error) { return pdd_chat_new(nullptr, made, error); });
        for (std::string line; std::getline(std::cin, line);)
            if (!line.empty()) ask(device.get(), chat.get(), line);
    } catch (const std::exception &e) {
        std::cerr << "chat: " << e.what() << '\n';
        return 1;
    }
}
