# The server of llie. For a GPU, build with the packages of PyTorch for it, as pytorch.org names them:
#   docker build -t llie:gpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
# More: docs/server.md

FROM python:3.13-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/llie
ENV PATH=/opt/llie/bin:$PATH
# setup.py says which versions fit
# hadolint ignore=DL3013
RUN pip install --index-url "$TORCH_INDEX" torch torchvision
WORKDIR /source
COPY . .
# OpenCV without windows needs no system libraries.
# hadolint ignore=DL3013
RUN pip install '.[server,photo]' && pip uninstall --yes opencv-python && pip install opencv-python-headless

FROM python:3.13-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin llie
COPY --from=build /opt/llie /opt/llie
ENV PATH=/opt/llie/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LLIE_OFFLINE=1
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# What stands behind the image's name in `docker run` are further options.
ENTRYPOINT ["llie", "serve", "--host", "0.0.0.0"]
