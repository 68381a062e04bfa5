# The service, `colbert serve`, as a user without rights on a root file system that is only read. docs/deploying.md tells how to use it.
#
#     docker build --build-arg TORCH_INDEX=... -t colbert .

FROM python:3.12-slim AS build
RUN python -m venv /opt/colbert
ENV PATH=/opt/colbert/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY constraints.txt ./
# Where pip finds PyTorch's CPU build: the address in the line that the install page of PyTorch's website gives for pip and CPU.
# Without it pip takes its default, which brings several gigabytes of CUDA libraries.
ARG TORCH_INDEX=""
RUN pip install -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY pyproject.toml README.md LICENSE ./
COPY colbert_core ./colbert_core
COPY langchain_colbert ./langchain_colbert
COPY llama_index_colbert ./llama_index_colbert
RUN pip install -c constraints.txt ".[serve]"

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent colbert \
    && install -d -o colbert -m 700 /cache \
    && install -d -o colbert -m 755 /indexes
COPY --from=build /opt/colbert /opt/colbert
# All that is written beside indexes: machine code of the kernels and downloaded models in /cache, and short-lived files in /tmp.
ENV PATH=/opt/colbert/bin:$PATH \
    XDG_CACHE_HOME=/cache \
    HF_HOME=/cache/huggingface \
    TMPDIR=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TOKENIZERS_PARALLELISM=false
USER colbert
WORKDIR /indexes
VOLUME ["/indexes", "/cache"]
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
CMD ["colbert", "serve", "/indexes", "--host", "0.0.0.0", "--port", "8080", "--token-file", "/run/secrets/token"]
