"""The table of commands: what ``mmkernel --help`` lists, the function behind each, examples that work as they stand."""

from typing import NamedTuple


class Command(NamedTuple):
    """A line of the table. The first word of each example follows ``mmkernel NAME``; examples work as they stand."""

    group: str
    summary: str
    function: str  # 'module:function'
    examples: tuple[str, ...]
    whole: bool = False  # the function reports its errors itself


RUN = 'work_dirs/kernels/digits_rbf'
FILE = f'{RUN}/epoch_20.pth'
GROUPS = ('Pretrain', 'Judge', 'Look', 'Weights', 'This machine')
COMMANDS = {
    'train': Command(
        'Pretrain', 'pretrain an encoder from a config, or on images of your own', 'mmkernel.cli.train:train',
        ('--data photos', '--data photos --recipe vicreg --backbone resnet50 --size 128',
         'configs/kernels/digits_rbf.py', 'configs/sfrik/digits_L3.py --cfg-options train_cfg.max_epochs=5',
         'configs/sfrik/r50_L3_q32768.py --dry-run --gpus 8 --memory 80GB'), whole=True),
    'resume': Command(
        'Pretrain', 'go on with a run, from its folder alone', 'mmkernel.cli.resume:resume',
        (RUN, 'my_run --cfg-options train_cfg.max_epochs=40', 'my_run/epoch_10.pth --out my_branch'), whole=True),
    'replay': Command(
        'Pretrain', 'do the step again that ended a run with NaN or infinity, and name the first module with a bad value',
        'mmkernel.cli.replay:replay', (f'{RUN}/20260101_120000/non_finite.pth',)),
    'config list': Command(
        'Pretrain', 'configs that come with the package', 'mmkernel.cli.recipes:show_list', ('sfrik', "'*digits*'")),
    'config show': Command(
        'Pretrain', 'a config with all that it inherits', 'mmkernel.cli.recipes:show',
        ('sfrik/digits_L3', 'sfrik/r50_L3_q32768 --key model.head', FILE)),
    'config diff': Command(
        'Pretrain', 'what differs between two configs, runs or checkpoints', 'mmkernel.cli.recipes:diff',
        ('sfrik/digits_L2 sfrik/digits_L3', 'sfrik/digits_L3', f'kernels/digits_rbf {RUN}')),
    'data check': Command(
        'Pretrain', 'numbers, sizes, channels, mean and std, damaged files, duplicates, speed', 'mmkernel.cli.data:check',
        ('/my/train --test /my/test', 'configs/sfrik/digits_L3.py', '/my/images --limit 10000 --json > found.json',
         """"dict(type='NpzPack', path='pack.npz')\"""")),
    'knn': Command(
        'Judge', 'weighted nearest neighbours, beside raw pixels and the untrained encoder', 'mmkernel.cli.probes:knn',
        (FILE, 'sfrik_digits_L3', f'{FILE} --data /my/photos', 'resnet50.pth --train /my/train --test /my/test --out knn.json',
         'configs/sfrik/digits_L3.py none')),
    'linear': Command(
        'Judge', 'linear probes on frozen features: a sweep of 198 heads, SGD, L-BFGS', 'mmkernel.cli.probes:linear',
        (FILE, 'sfrik_digits_L3 --protocol lbfgs --data /my/photos')),
    'classify': Command(
        'Judge', 'a classifier on augmented images by a published protocol: linear or fine-tuned',
        'mmkernel.cli.fine_tune:classify',
        ('sfrik_digits_L3 --protocol linear_digits --untrained', 'sfrik_digits_L3 --protocol linear_digits --data /my/photos',
         'epoch_20.pth --protocol linear_digits --test-only')),
    'semi': Command(
        'Judge', 'fine-tuned on few labels: a fraction, some per class, or lists of files', 'mmkernel.cli.fine_tune:semi',
        ('sfrik_digits_L3 --protocol semi_digits --per-class 1 4',)),
    'svm': Command(
        'Judge', 'support vector machines on photographs of several classes: VOC07 mAP, low-shot', 'mmkernel.cli.tasks:svm',
        ('resnet50.pth --root data/voc2007', 'resnet50.pth --root data/voc2007 --low-shot --shots 1 4')),
    'transfer': Command(
        'Judge', 'linear transfer to twelve published sets, or to yours', 'mmkernel.cli.transfers:transfer',
        ('sfrik_digits_L3 --sets digits', 'resnet50.pth --root data --sets pets dtd flowers102')),
    'transformation': Command(
        'Judge', 'which transformation was applied to an image, from features and from embeddings',
        'mmkernel.cli.tasks:transformation', (FILE, 'epoch_20.pth --tasks rotation noise')),
    'diagnose': Command(
        'Look', 'is this embedding healthy, doubtful or collapsed? a page in words and pictures',
        'mmkernel.cli.diagnose:diagnose', (FILE, f'{FILE} --images 500', 'epoch_20.pth --data /my/images --json')),
    'plot': Command(
        'Look', 'curves of runs over one another, before those of the shipped recipe; a report in one file',
        'mmkernel.cli.plot:plot',
        (RUN, f'work_dirs/sfrik/digits_L3 {RUN}', f'{RUN} --report')),
    'features': Command(
        'Look', 'features of every image of a folder, labels and names, as an npz file', 'mmkernel.cli.probes:features',
        ('sfrik_digits_L3 --data /my/images --out features.npz', FILE)),
    'kernel show': Command(
        'Look', 'profile, expansion, null band and gradient of one kernel', 'mmkernel.cli.kernel_lab:show',
        ('LegendreKernel weights=1,40,40 --width 256', "'0.5 * RBFKernel(scale=2) + RieszKernel()' --out k.png")),
    'kernel compare': Command(
        'Look', 'several kernels in one table and one picture', 'mmkernel.cli.kernel_lab:compare',
        ("'LegendreKernel weights=1,40,40' 'RBFKernel scale=2'",)),
    'kernel fit': Command(
        'Look', 'weights of the LegendreKernel nearest to a kernel', 'mmkernel.cli.kernel_lab:fit', ('RBFKernel scale=2',)),
    'zoo list': Command(
        'Weights', 'names that match a pattern, and what is published for them', 'mmkernel.cli.zoo:show_list',
        ("'*r50*'", '--pretrained')),
    'zoo info': Command(
        'Weights', 'config, published results with their sources, files', 'mmkernel.cli.zoo:show_info', ('moco_r50_v2_200e',)),
    'zoo download': Command('Weights', 'fetch files and check them', 'mmkernel.cli.zoo:fetch', ('moco_r50_v2_200e',)),
    'zoo verify': Command('Weights', 'compare every byte of what is here with what is published', 'mmkernel.cli.zoo:check', ('',)),
    'zoo clean': Command('Weights', 'remove files from the cache', 'mmkernel.cli.zoo:remove', ('--leftovers',)),
    'export': Command(
        'Weights', 'write an encoder for timm, torchvision, the hub, ONNX, detectors; proven by equal features',
        'mmkernel.cli.weights:export', (f'{FILE} --to onnx', 'sfrik_digits_L3 --to safetensors')),
    'import': Command(
        'Weights', 'read weights of another library into a file of this one', 'mmkernel.cli.weights:import_',
        ('resnet50.pth --from torchvision --arch resnet50',)),
    'publish': Command(
        'Weights', 'make a file for others of a checkpoint: weights only, hash in the name, card',
        'mmkernel.cli.weights:publish', (f'{FILE} --name digits_rbf',)),
    'env': Command(
        'This machine', 'versions, devices, combinations known to fail and the fix of each', 'mmkernel.cli.machine:env',
        ('', '--json > env.json')),
}  # fmt: skip
FOLDERS = {
    'config': ('Pretrain', 'the configs of the package: list, show, diff'),
    'kernel': ('Look', 'show, compare and fit kernels K(u, v) = phi(u.v) on the sphere'),
    'zoo': ('Weights', 'published weights by name: list, info, download, verify, clean'),
    'data': ('Pretrain', 'your images before training: sizes, mean and std, damaged files, duplicates, speed'),
}
"""The first word of commands that have two, such as ``kernel show``: its group and what it says of itself."""
